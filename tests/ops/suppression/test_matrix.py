"""Matrix suppression: by hand, against the formula written as loops, in pieces."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detkit.ops import matrix_nms
from detkit.ops.suppression import matrix
from tests.ops import fuzz_nms as fuzz

# In a row: neighbours overlap by 1/3, the outer two not at all.
BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]])
SCORES = torch.tensor([0.9, 0.8, 0.7])


def test_by_hand() -> None:
    # The third is overlapped by the second alone, which is itself overlapped by 1/3: the quotient is 1.
    for kernel in ("linear", "gaussian"):
        factor = 2 / 3 if kernel == "linear" else math.exp(-(1 / 9) / 0.5)
        keep, lowered = matrix_nms(BOXES, SCORES, kernel=kernel)
        order = [0, 2, 1]
        assert keep.tolist() == order
        torch.testing.assert_close(lowered, torch.tensor([0.9, 0.8 * factor, 0.7])[order])
    _, lowered = matrix_nms(BOXES, SCORES, torch.tensor([0, 1, 0]))
    assert torch.equal(lowered, SCORES)


def test_a_twin_is_gone_and_lowers_no_other() -> None:
    keep, lowered = matrix_nms(BOXES[[1, 1, 2]], SCORES, kernel="linear")
    assert keep.tolist() == [0, 2, 1]
    torch.testing.assert_close(lowered, torch.tensor([0.9, 0.7 * 2 / 3, 0.0]))


def by_loops(boxes: Tensor, groups: Tensor | None, gaussian: bool, sigma: float) -> Tensor:
    """Equation 5, pair by pair."""
    iou = matrix.overlaps(boxes[:, None], boxes[None]).tolist()
    names = [0] * len(boxes) if groups is None else groups.tolist()
    most, factors = [], []
    for j in range(len(boxes)):
        better = [i for i in range(j) if names[i] == names[j]]
        most.append(max((iou[i][j] for i in better), default=0.0))
        least = 1.0
        for i in better:
            if gaussian:
                least = min(least, math.exp(-(iou[i][j] ** 2) / sigma) / math.exp(-(most[i] ** 2) / sigma))
            elif most[i] < 1:
                least = min(least, (1 - iou[i][j]) / (1 - most[i]))
        factors.append(least)
    return torch.tensor(factors, dtype=torch.float64)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**40), st.booleans(), st.sampled_from([1, 500, 10**9]))
def test_equals_the_formula_in_pieces_of_any_size(seed: int, gaussian: bool, chunk: int) -> None:
    boxes, _, groups, _ = fuzz.case(seed, large=False)
    boxes, groups = boxes[:65].double(), None if groups is None else groups[:65]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "CHUNK", chunk)
        found = matrix.decay(boxes, groups, gaussian, 0.5)
    torch.testing.assert_close(found, by_loops(boxes, groups, gaussian, 0.5), rtol=1e-9, atol=1e-12)
