from __future__ import annotations

from typing import Any

import torch

from detkit.assigners.base import assign as assign_by
from detkit.assigners.max_iou import MaxIoUAssigner
from detkit.structures import BACKGROUND, IGNORED, Assignment, Targets
from tests.assigners.only_anchors import only_anchors
from tests.refusals import Refuses

EMPTY = torch.zeros(0, 4)


def assign(anchors: Any, boxes: Any, labels: Any = None, ignore: Any = EMPTY, **options: Any) -> Assignment:
    boxes = torch.as_tensor(boxes).float().reshape(-1, 4)
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    targets = Targets(boxes, labels, torch.as_tensor(ignore).float())
    return assign_by(MaxIoUAssigner(**options), only_anchors(anchors), targets)


# One object of 10 x 10 px; anchors of the same height with IoU exactly 1, 0.5, 0.4, 0.25 and 0.
BOX = [0, 0, 10, 10]
ANCHORS = [[0, 0, 10, 10], [0, 0, 20, 10], [0, 0, 25, 10], [0, 0, 40, 10], [100, 100, 110, 110]]


def test_thresholds_by_hand() -> None:
    found = assign(ANCHORS, [BOX], labels=[7])
    # At 0.5 positive, at 0.4 ignored, below 0.4 background.
    assert found.labels.tolist() == [7, 7, IGNORED, BACKGROUND, BACKGROUND]
    assert found.matched[:2].tolist() == [0, 0]


def test_an_anchor_takes_the_object_it_overlaps_most() -> None:
    found = assign([[0, 0, 10, 10]], [[0, 0, 10, 20], [0, 0, 10, 12]], labels=[3, 5])
    assert found.labels.tolist() == [5]
    assert found.matched.tolist() == [1]


def test_low_quality_gives_every_object_its_best_anchors_ties_included() -> None:
    anchors = [[0, 0, 40, 10], [0, 0, 10, 40], [0, 0, 80, 10]]
    assert assign(anchors, [BOX], labels=[2]).labels.tolist() == [2, 2, BACKGROUND]
    assert assign(anchors, [BOX], labels=[2], low_quality=False).labels.tolist() == [BACKGROUND] * 3


def test_low_quality_keeps_the_anchors_own_best_object() -> None:
    # The anchor is the only one, so the best of both objects; it stays with the one it overlaps most.
    found = assign([[0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 100]], labels=[0, 1])
    assert found.labels.tolist() == [0]


def test_best_is_own_gives_the_anchor_to_the_last_object_whose_best_it_is() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 100], [500, 500, 510, 510]]
    found = assign([[0, 0, 10, 10]], boxes, labels=[0, 1, 2], best_is_own=True)
    assert [found.labels.tolist(), found.matched.tolist()] == [[1], [1]]


def test_an_object_that_no_anchor_overlaps_takes_none() -> None:
    assert assign(ANCHORS, [[500, 500, 510, 510]]).labels.tolist() == [BACKGROUND] * 5


def test_no_objects_and_no_anchors() -> None:
    assert assign(ANCHORS, EMPTY).labels.tolist() == [BACKGROUND] * 5
    assert assign(torch.zeros(0, 4), [BOX]).labels.shape == (0,)


def test_anchors_on_ignore_regions_are_neither_positive_nor_negative() -> None:
    regions = [[-5, -5, 15, 15], [99, 99, 111, 111]]
    found = assign(ANCHORS, [BOX], labels=[7], ignore=regions)
    # Inside: all of the first, 15/20 of the second, 15/25 of the third, 15/40 of the fourth, all of the fifth.
    assert found.labels.tolist() == [IGNORED, IGNORED, IGNORED, BACKGROUND, IGNORED]


def test_exactly_half_inside_an_ignore_region_still_counts() -> None:
    assert assign([[0, 0, 10, 10]], EMPTY, ignore=[[0, 0, 5, 10]]).labels.tolist() == [BACKGROUND]


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


def test_thresholds_out_of_order_are_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        MaxIoUAssigner(positive=0.3, negative=0.4)


def test_a_best_anchor_may_be_its_own_objects() -> None:
    # The second object's best anchor overlaps the first one more.
    anchors, boxes = [[0, 0, 10, 10]], [[0, 0, 10, 12], [0, 0, 10, 20]]
    assert assign(anchors, boxes, positive=0.9, negative=0.9).matched.tolist() == [0]
    own = assign(anchors, boxes, positive=0.9, negative=0.9, best_is_own=True)
    assert (own.labels.tolist(), own.matched.tolist()) == ([1], [1])
    whole = assign(anchors, boxes, positive=0.9, negative=0.9, best_is_own=True, chunk_elements=1)
    assert whole.matched.tolist() == own.matched.tolist()
