"""Box voting: by hand, against the formula written as loops, in pieces."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.ops import batched_nms, vote_boxes
from detkit.ops.suppression import voting
from tests.refusals import Refuses

# The second overlaps the first by 0.8, the third by 0.5, the last by nothing.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 5, 10], [50, 50, 60, 60]])
SCORES = torch.tensor([0.9, 0.6, 0.3, 0.5])
KEEP = torch.tensor([0, 3])


def test_score_voting_by_hand() -> None:
    first, second, third = 0.9, 0.6 * math.exp(-(0.2**2) / 0.025), 0.3 * math.exp(-(0.5**2) / 0.025)
    total = first + second + third
    x2, y2 = (10 * (first + second) + 5 * third) / total, (10 * (first + third) + 8 * second) / total
    moved = vote_boxes(BOXES, SCORES, KEEP)
    torch.testing.assert_close(moved, torch.tensor([[0, 0, x2, y2], [50, 50, 60, 60]]))


def test_box_voting_by_hand() -> None:
    moved = vote_boxes(BOXES, SCORES, KEEP, iou_threshold=0.6, sigma=None)
    torch.testing.assert_close(moved[0], torch.tensor([0, 0, 10, (0.9 * 10 + 0.6 * 8) / 1.5]))


def test_only_its_own_group_votes() -> None:
    groups = torch.tensor([1, 2, 1, 1])
    moved = vote_boxes(BOXES, SCORES, KEEP, groups, iou_threshold=0.1, sigma=None)
    torch.testing.assert_close(moved[0], torch.tensor([0, 0, (0.9 * 10 + 0.3 * 5) / 1.2, 10]))


def test_a_box_without_another_does_not_move_by_a_bit() -> None:
    boxes = torch.tensor([[0.1, 0.2, 10.3, 10.7], [float("nan"), 0, 1, 1], [20.1, 20.7, 30.3, 30.9]])
    keep = torch.arange(3)
    for scores in (torch.tensor([0.3, 0.9, 0.0]), torch.zeros(3)):
        assert torch.equal(vote_boxes(boxes, scores, keep).nan_to_num(7), boxes.nan_to_num(7))
    assert vote_boxes(boxes[:0], torch.zeros(0), keep[:0]).shape == (0, 4)
    assert vote_boxes(boxes, torch.ones(3), keep[:0]).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.booleans(), st.sampled_from([1, 300, 10**9]))
def test_equals_the_formula_in_pieces_of_any_size(seed: int, exponential: bool, chunk: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(40, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + 1 + torch.rand(40, 2, generator=generator) * 30), dim=1)
    scores, groups = torch.rand(40, generator=generator), torch.randint(3, (40,), generator=generator)
    keep = batched_nms(boxes, scores, groups, 0.6)
    sigma = 0.025 if exponential else None
    before, voting.CHUNK = voting.CHUNK, chunk
    try:
        moved = vote_boxes(boxes, scores, keep, groups, sigma=sigma)
    finally:
        voting.CHUNK = before
    iou = voting.overlaps(boxes.double()[:, None], boxes.double()[None])
    for j, box in zip(keep.tolist(), moved, strict=True):
        voters = [i for i in range(40) if groups[i] == groups[j] and iou[i, j] > 0.01]
        factors = [math.exp(-((1 - float(iou[i, j])) ** 2) / 0.025) if exponential else 1.0 for i in voters]
        weights = [float(scores[i]) * factor for i, factor in zip(voters, factors, strict=True)]
        mean = sum(w * boxes[i].double() for w, i in zip(weights, voters, strict=True)) / sum(weights)
        torch.testing.assert_close(box.double(), mean, rtol=1e-5, atol=1e-4)


def test_refuses_what_can_not_weigh(refuses: Refuses) -> None:
    with refuses(ValueError):
        vote_boxes(BOXES, SCORES - 0.5, KEEP)
    with refuses(ValueError):
        vote_boxes(BOXES, SCORES, KEEP, sigma=0.0)
    with refuses(ValueError):
        vote_boxes(BOXES, SCORES, torch.tensor([True, False, False, True]))
    with refuses(ValueError):
        vote_boxes(BOXES[:, :3], SCORES, KEEP)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    moved = vote_boxes(BOXES.to(dtype), SCORES.to(dtype), KEEP)
    assert moved.dtype == dtype
    torch.testing.assert_close(moved.float(), vote_boxes(BOXES, SCORES, KEEP), rtol=1e-2, atol=1e-2)
