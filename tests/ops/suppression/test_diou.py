"""Suppression by distance IoU."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.ops import diou_nms
from detkit.ops.suppression.diou import distances
from tests.ops import fuzz_nms as fuzz

# IoU 1/3; centres 5 apart, hull 15 x 10: 25 / 325.
BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]])


def test_by_hand() -> None:
    torch.testing.assert_close(distances(BOXES[0], BOXES), torch.tensor([0.0, 25 / 325]))
    scores = torch.tensor([0.5, 0.9])
    at = 1 / 3 - 25 / 325
    assert diou_nms(BOXES, scores, at - 1e-6).tolist() == [1]
    assert diou_nms(BOXES, scores, at + 1e-6).tolist() == [1, 0]
    assert diou_nms(BOXES, scores, at - 1e-6, torch.tensor([3, -1])).tolist() == [1, 0]


def test_equal_scores_go_by_index() -> None:
    assert diou_nms(BOXES[[0, 0, 1]], torch.ones(3), 0.5).tolist() == [0, 2]


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**40))
def test_the_native_op_equals_the_reference(seed: int) -> None:
    assert fuzz.same_diou(*fuzz.case(seed, large=False))
