"""SSD's matching, on hand-drawn boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detkit.assigners.base import assign as assign_by
from detkit.assigners.ssd import SSDAssigner
from detkit.structures import BACKGROUND, IGNORED, Assignment, Targets
from tests.assigners.only_anchors import only_anchors
from tests.refusals import Refuses

EMPTY = torch.zeros(0, 4)


def assign(anchors: Any, boxes: Any, labels: Any = None, ignore: Any = EMPTY, **options: Any) -> Assignment:
    boxes = torch.as_tensor(boxes).float().reshape(-1, 4)
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    targets = Targets(boxes, labels, torch.as_tensor(ignore).float())
    return assign_by(SSDAssigner(**options), only_anchors(anchors), targets)


# One object of 10 x 10 px; anchors of the same height with IoU exactly 1, 0.625, 0.5, 0.4 and 0.
BOX = [0, 0, 10, 10]
ANCHORS = [[0, 0, 10, 10], [0, 0, 16, 10], [0, 0, 20, 10], [0, 0, 25, 10], [100, 100, 110, 110]]


def test_only_what_is_above_the_threshold_is_positive_and_nothing_is_between() -> None:
    found = assign(ANCHORS, [BOX], labels=[7])
    assert found.labels.tolist() == [7, 7, BACKGROUND, BACKGROUND, BACKGROUND]
    assert found.matched[:2].tolist() == [0, 0]
    assert assign(ANCHORS, [BOX], labels=[7], positive=0.39).labels.tolist() == [7, 7, 7, 7, BACKGROUND]


def test_the_best_anchor_of_an_object_is_positive_however_little_it_overlaps() -> None:
    found = assign(ANCHORS[3:], [BOX], labels=[2])
    assert found.labels.tolist() == [2, BACKGROUND]
    assert int(found.matched[0]) == 0


def test_of_equal_best_anchors_the_first_is_taken() -> None:
    assert assign([[0, 0, 40, 10], [0, 0, 10, 40]], [BOX], labels=[2]).labels.tolist() == [2, BACKGROUND]


def test_an_objects_best_anchor_goes_to_it_though_it_overlaps_another_one_more() -> None:
    # IoU of the first anchor: 0.8 with the first object, 0.4 with the second, whose best it is.
    anchors = [[0, 0, 10, 10], [0, 0, 8, 10]]
    found = assign(anchors, [[0, 0, 8, 10], [0, 0, 25, 10]], labels=[3, 5])
    assert found.labels.tolist() == [5, 3]
    assert found.matched.tolist() == [1, 0]


def test_the_best_anchor_of_two_objects_goes_to_the_later() -> None:
    found = assign([[0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 100]], labels=[0, 1])
    assert (found.labels.tolist(), found.matched.tolist()) == ([1], [1])


def test_an_object_that_no_anchor_overlaps_takes_none_away() -> None:
    found = assign(ANCHORS, [BOX, [500, 500, 510, 510]], labels=[7, 8])
    assert found.labels.tolist() == [7, 7, BACKGROUND, BACKGROUND, BACKGROUND]


def test_no_objects_and_no_anchors() -> None:
    assert assign(ANCHORS, EMPTY).labels.tolist() == [BACKGROUND] * 5
    assert assign(torch.zeros(0, 4), [BOX], ignore=[BOX]).labels.shape == (0,)


def test_anchors_on_ignore_regions_take_no_part() -> None:
    found = assign(ANCHORS, [BOX], labels=[7], ignore=[[99, 99, 111, 111]])
    assert found.labels.tolist() == [7, 7, BACKGROUND, BACKGROUND, IGNORED]


def test_chunks_do_not_change_the_result() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 60, (300, 2), generator=generator).float()
    anchors = torch.cat((corner, corner + torch.randint(4, 40, (300, 2), generator=generator)), 1)
    boxes, ignore = anchors[::20] + 1.0, anchors[5:8] + 3
    whole = assign(anchors, boxes, ignore=ignore)
    for elements in (1, 50, 1000):
        pieces = assign(anchors, boxes, ignore=ignore, chunk_elements=elements)
        assert torch.equal(whole.labels, pieces.labels)
        assert torch.equal(whole.matched, pieces.matched)
    assert (whole.labels >= 0).any()


@pytest.mark.parametrize(("argument", "value"), [("positive", 1.5), ("chunk_elements", 0)])
def test_senseless_arguments_are_named(refuses: Refuses, argument: str, value: Any) -> None:
    with refuses(ValueError):
        SSDAssigner(**{argument: value})
