"""The padded op against nms and batched_nms, and what the compiler and the exporter make of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.ops import batched_nms, nms, nms_padded
from tests.ops import fuzz_nms as fuzz
from tests.refusals import Refuses

SQUARES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [40, 40, 50, 50]])


def random_boxes(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return fuzz.boxes_of("cluster", n, g).to(dtype), torch.rand(n, generator=g)


def test_hand_drawn_boxes() -> None:
    indices, count = nms_padded(SQUARES, torch.tensor([0.5, 0.9, 0.1]), 0.3, 4)
    assert (indices.tolist(), int(count)) == ([1, 2, -1, -1], 2)
    indices, count = nms_padded(SQUARES, torch.tensor([0.5, 0.9, 0.1]), 0.3, 4, score_threshold=0.1)
    assert (indices.tolist(), int(count)) == ([1, -1, -1, -1], 1)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 70), st.sampled_from([None, -1.0, 0.0, 0.4]))
def test_equal_to_nms_on_the_fuzz_cases(seed: int, max_output: int, floor: float | None) -> None:
    boxes, scores, groups, threshold = fuzz.case(seed, large=False)
    indices, count = nms_padded(boxes, scores, threshold, max_output, groups, floor)
    rows = torch.arange(len(boxes)) if floor is None else (scores > floor).nonzero()[:, 0]
    if groups is None:
        wanted = rows[nms(boxes[rows], scores[rows], threshold)]
    else:
        wanted = rows[batched_nms(boxes[rows], scores[rows], groups[rows], threshold)]
    wanted = wanted[:max_output]
    assert int(count) == len(wanted)
    assert indices.shape == (max_output,)
    assert torch.equal(indices[: len(wanted)], wanted)
    assert (indices[len(wanted) :] == -1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_of_a_batch_and_other_dtypes_stand_alone(dtype: torch.dtype) -> None:
    drawn = [random_boxes(65, seed, dtype) for seed in range(3)]
    boxes, scores = (torch.stack(column) for column in zip(*drawn, strict=True))
    indices, counts = nms_padded(boxes, scores, 0.5, 20)
    for i in range(3):
        alone = nms_padded(boxes[i], scores[i], 0.5, 20)
        assert torch.equal(indices[i], alone[0])
        assert counts[i] == alone[1]
    assert nms_padded(boxes[:0], scores[:0], 0.5, 20)[0].shape == (0, 20)


def test_compiles_and_exports_in_one_graph() -> None:
    class Padded(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return nms_padded(boxes, scores, 0.5, 30, groups, 0.1)

    boxes, scores = random_boxes(100)
    given_ = (boxes, scores, torch.arange(100) % 3)
    wanted = Padded()(*given_)
    for run in (
        torch.compile(Padded(), fullgraph=True, backend="aot_eager"),
        torch.export.export(Padded(), given_).module(),
    ):
        assert all(torch.equal(a, b) for a, b in zip(run(*given_), wanted, strict=True))


def test_wrong_input_is_named(refuses: Refuses) -> None:
    with refuses(ValueError):
        nms_padded(SQUARES, torch.ones(3), 0.5, 0)
    with refuses(ValueError):
        nms_padded(SQUARES, torch.ones(2), 0.5, 3)
    with refuses(ValueError):
        nms_padded(SQUARES[None], torch.ones(1, 3), 0.5, 3, torch.ones(3, dtype=torch.long))
    with refuses(ValueError):
        nms_padded(SQUARES.long(), torch.ones(3), 0.5, 3)


def test_shapes_alone_go_through_the_meta_device() -> None:
    boxes, scores = torch.zeros(2, 9, 4, device="meta"), torch.zeros(2, 9, device="meta")
    indices, count = nms_padded(boxes, scores, 0.5, 5, torch.zeros(2, 9, device="meta").long(), 0.1)
    assert (indices.device.type, indices.shape, indices.dtype) == ("meta", (2, 5), torch.int64)
    assert (count.shape, count.dtype) == ((2,), torch.int64)
