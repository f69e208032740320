"""The middle of objects, and the choice of their level, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.assigners.base import assign as assign_by
from detkit.registry import ANCHORS, ASSIGNERS
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets
from tests.refusals import Refuses

LEVELS = [(8, 8), (4, 4)]
SIZES = (64, 16)
EVERY_LEVEL = {"smallest": 0.0, "largest": None}


def points() -> Tensor:
    node = {"type": "OctaveAnchors", "base_scale": 1.0, "scales_per_octave": 1, "aspect_ratios": [1.0], "offset": 0.5}
    return torch.cat(ANCHORS.build(node, strides=(8, 16))(LEVELS, (64, 64), torch.device("cpu")))


def candidates(scores: Tensor | None = None, boxes: Tensor | None = None) -> Candidates:
    nothing = torch.zeros(sum(SIZES), 4)
    given = [nothing if x is None else x for x in (scores, boxes)]
    return Candidates(points(), SIZES, lambda: given[0], lambda: given[1])


def assign(node: dict[str, Any], true: list[list[float]], ignore: Any = (), **given: Any) -> Assignment:
    targets = Targets(torch.tensor(true).view(-1, 4), torch.arange(len(true)), torch.tensor(ignore).view(-1, 4))
    return assign_by(ASSIGNERS.build(node), candidates(**given), targets)


def central(boxes: list[list[float]], ignore: Any = (), **settings: Any) -> Assignment:
    return assign({"type": "CentralRegionAssigner", **settings}, boxes, ignore)


def cells(labels: Tensor, side: int) -> list[list[int]]:
    return [[int(x), int(y)] for y, x in (labels.view(side, side) >= 0).nonzero()]


def test_points_in_the_middle_part() -> None:
    # The middle is (24, 28); the part of 40 px * 0.4 reaches 8 px to each side. Points are at 4, 12, 20, 28, ...
    fine, _ = central([[4.0, 8, 44, 48]], **EVERY_LEVEL).labels.split(SIZES)
    assert cells(fine, 8) == [[2, 2], [3, 2], [2, 3], [3, 3], [2, 4], [3, 4]]  # 20 and 28; 20, 28 and 36, on the edge


def test_anchors_that_touch_the_middle_part() -> None:
    box = [[21.0, 21, 23, 23]]  # no point lies in it on any level
    assert (central(box, **EVERY_LEVEL).labels == BACKGROUND).all()
    fine, coarse = central(box, touch=True, **EVERY_LEVEL).labels.split(SIZES)
    assert [cells(fine, 8), cells(coarse, 4)] == [[[2, 2]], [[1, 1]]]


@pytest.mark.parametrize(("side", "on"), [(8.0, [True, False]), (40.0, [True, True]), (63.0, [False, True])])
def test_levels_by_size(side: float, on: list[bool]) -> None:
    # Strides 8 and 16: the finest takes up to 5 strides, the coarsest from 2 (32 px).
    labels = central([[0.0, 0, side, side]], region=1.0, smallest=2.0, largest=5.0).labels
    assert [bool((level >= 0).any()) for level in labels.split(SIZES)] == on


def test_the_smaller_of_two_objects_has_the_point_whatever_their_order() -> None:
    small, large = [12.0, 12, 28, 28], [0.0, 0, 40, 40]
    for boxes, row in (([small, large], 0), ([large, small], 1)):
        found = central(boxes, region=0.2, **EVERY_LEVEL)
        assert [found.labels[18], found.matched[18]] == [row, row]  # the point (20, 20)


def test_ignore_regions_and_no_objects() -> None:
    labels = central([], [[0.0, 0, 16, 16]]).labels
    assert (labels == IGNORED).sum() == 4 + 1
    assert (labels == BACKGROUND).sum() == 60 + 15


def test_sizes_that_no_level_takes_are_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        ASSIGNERS.build({"type": "CentralRegionAssigner", "smallest": 3.0, "largest": 2.0})


INNER = {"type": "CentralRegionAssigner", "region": 0.2, "touch": True, **EVERY_LEVEL}


@pytest.mark.parametrize(("others", "becomes"), [("ignored", IGNORED), ("background", BACKGROUND)])
@pytest.mark.parametrize("better", [0, 1])
@pytest.mark.parametrize("by", ["scores", "boxes"])
def test_the_level_of_least_loss_keeps_the_object(by: str, better: int, others: str, becomes: int) -> None:
    box = torch.tensor([16.0, 16, 48, 48])
    scores, boxes = torch.full((80, 1), 0.5), (box + torch.tensor([0.0, 0, 8, 0])).repeat(80, 1)
    rows = slice(0, 64) if better == 0 else slice(64, 80)
    if by == "scores":
        scores[rows] = 0.9
    else:
        boxes[rows] = box
    node = {"type": "BestLevelAssigner", "assigner": INNER, "others": others}
    labels = assign(node, [box.tolist()], scores=scores, boxes=boxes).labels
    levels, inner = labels.split(SIZES), assign(INNER, [box.tolist()]).labels.split(SIZES)
    assert torch.equal(levels[better], inner[better])
    assert (levels[1 - better][inner[1 - better] >= 0] == becomes).all()


def test_each_object_has_a_level_of_its_own_and_the_mean_counts() -> None:
    first, second = [2.0, 2, 6, 6], [34.0, 34, 62, 62]
    boxes = torch.zeros(80, 4)
    boxes[:64], boxes[64:] = torch.tensor(first), torch.tensor(second)  # each level is right about one object
    scores = torch.full((80, 2), 0.5)
    labels = assign(
        {"type": "BestLevelAssigner", "assigner": INNER}, [first, second], scores=scores, boxes=boxes
    ).labels
    fine, coarse = labels.split(SIZES)
    assert sorted(set(fine.tolist())) == [IGNORED, BACKGROUND, 0]
    assert sorted(set(coarse.tolist())) == [IGNORED, BACKGROUND, 1]


def test_without_positives_predictions_are_not_looked_at() -> None:
    def fail() -> Tensor:
        raise AssertionError

    blind = replace(candidates(), scores=fail, boxes=fail)
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    part = ASSIGNERS.build({"type": "BestLevelAssigner", "assigner": INNER})
    assert (assign_by(part, blind, nothing).labels == BACKGROUND).all()
