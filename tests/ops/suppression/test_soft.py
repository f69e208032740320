"""Soft suppression: by hand, and the native op against plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.ops import diou_nms, matrix_nms, soft_nms
from detkit.ops.suppression import soft as module
from tests.ops import fuzz_nms as fuzz
from tests.refusals import Refuses

METHODS = ("linear", "gaussian")
# IoU of the first two: 50 / 150.
BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [40, 40, 50, 50]])


def test_linear_by_hand() -> None:
    keep, scores = soft_nms(BOXES, torch.tensor([0.9, 0.6, 0.5]), iou_threshold=0.3)
    assert keep.tolist() == [0, 2, 1]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5, 0.6 * (1 - 1 / 3)]))
    keep, scores = soft_nms(BOXES, torch.tensor([0.9, 0.6, 0.5]), iou_threshold=0.4)
    assert keep.tolist() == [0, 1, 2]


def test_gaussian_by_hand() -> None:
    keep, scores = soft_nms(BOXES, torch.tensor([0.6, 0.9, 0.1]), method="gaussian", sigma=0.5)
    assert keep.tolist() == [1, 0, 2]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.6 * math.exp(-(1 / 9) / 0.5), 0.1]))


def test_what_falls_to_the_least_score_goes() -> None:
    twins = BOXES[[0, 0, 2]]
    keep, _ = soft_nms(twins, torch.tensor([0.5, 0.5, 0.0005]))
    assert keep.tolist() == [0]
    keep, _ = soft_nms(twins, torch.tensor([0.5, 0.5, math.nan]), torch.tensor([0, 1, 0]))
    assert keep.tolist() == [0, 1]


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from(METHODS), st.sampled_from([0.0, 0.001, 0.3]))
def test_the_native_op_equals_the_reference(seed: int, method: str, floor: float) -> None:
    assert fuzz.same_soft(*fuzz.case(seed, large=False), method, floor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_come_back_as_they_came(dtype: torch.dtype) -> None:
    boxes, scores = BOXES.to(dtype), torch.tensor([0.9, 0.6, 0.5], dtype=dtype)
    keep, lowered = soft_nms(boxes, scores)
    assert lowered.dtype == dtype
    wanted = module.reference(boxes.double(), scores.double(), None, False, 0.3, 0.5, 0.001)
    assert torch.equal(keep, wanted[0])
    torch.testing.assert_close(lowered, wanted[1].to(dtype))


def test_strides_and_emptiness() -> None:
    scores = torch.tensor([0.9, 0.6, 0.5])
    wanted = soft_nms(BOXES, scores)
    assert all(map(torch.equal, soft_nms(BOXES.T.contiguous().T, scores.repeat_interleave(2)[::2]), wanted))
    for function in (soft_nms, matrix_nms):
        keep, lowered = function(BOXES[:0], scores[:0])
        assert (keep.shape, keep.dtype, lowered.shape) == ((0,), torch.int64, (0,))
    assert diou_nms(BOXES[:0], scores[:0], 0.5).tolist() == []


@pytest.mark.parametrize("function", [soft_nms, matrix_nms, lambda b, s, g=None: diou_nms(b, s, 0.5, g)])
def test_wrong_input_is_named(refuses: Refuses, function: Any) -> None:
    with refuses(ValueError):
        function(torch.zeros(3, 5), torch.zeros(3))
    with refuses(ValueError):
        function(BOXES, torch.zeros(2))
    with refuses(ValueError):
        function(BOXES, torch.zeros(3, dtype=torch.int64))
    with refuses(ValueError):
        function(BOXES, torch.zeros(3), torch.zeros(3))


def test_wrong_options_are_named(refuses: Refuses) -> None:
    scores = torch.zeros(3)
    with refuses(ValueError):
        soft_nms(BOXES, scores, method="square")  # type: ignore[arg-type]
    with refuses(ValueError):
        matrix_nms(BOXES, scores, kernel="square")  # type: ignore[arg-type]
    for function in (soft_nms, matrix_nms):
        for sigma in (0.0, math.nan):
            with refuses(ValueError):
                function(BOXES, scores, sigma=sigma)


def test_opcheck_and_one_graph() -> None:
    boxes, scores, groups, _ = fuzz.case(11, large=False)
    boxes, scores = BOXES.repeat(10, 1), torch.rand(30, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(30) % 2
    torch.library.opcheck(torch.ops.detkit.soft_nms.default, (boxes, scores, groups, True, 0.3, 0.5, 0.001))
    torch.library.opcheck(torch.ops.detkit.diou_nms.default, (boxes, scores, groups, 0.5))

    def all_three(boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        keep, lowered = soft_nms(boxes, scores)
        return boxes[keep], lowered, boxes[diou_nms(boxes, scores, 0.5)], matrix_nms(boxes, scores)[1]

    compiled = torch.compile(all_three, fullgraph=True, backend="aot_eager", dynamic=True)
    for got, wanted in zip(compiled(boxes, scores), all_three(boxes, scores), strict=True):
        assert torch.equal(got, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(soft_nms(boxes, scores)[1], all_three(boxes, scores)[1])
