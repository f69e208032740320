from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.assigners.atss import ATSSAssigner
from detkit.assigners.base import assign as assign_by
from detkit.boxes import pairwise_iou
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets
from tests.assigners.only_anchors import only_anchors
from tests.refusals import Refuses

EMPTY = torch.zeros(0, 4)


def assign(
    anchors: Any,
    boxes: Any,
    labels: Any = None,
    ignore: Any = EMPTY,
    level_sizes: tuple[int, ...] | None = None,
    **options: Any,
) -> Assignment:
    boxes = torch.as_tensor(boxes).float().reshape(-1, 4)
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    targets = Targets(boxes, labels, torch.as_tensor(ignore).float())
    return assign_by(ATSSAssigner(**options), only_anchors(anchors, level_sizes), targets)


def square(x: float, y: float, side: float = 10) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


BOX = square(5, 5)


def test_threshold_by_hand() -> None:
    # Shifts 0, 1, 8, 9 along x: IoU 1, 90/110, 20/180, 10/190; the mean is 0.4954, mean + deviation 0.9860 by
    # n - 1 and 0.9203 by n. So the second is no positive.
    anchors = [square(5 + shift, 5) for shift in (0, 1, 8, 9)]
    assert assign(anchors, [BOX], labels=[7], topk=4).labels.tolist() == [7, *[BACKGROUND] * 3]
    # IoU 0.82, 0.82, 0.43: mean 0.69 and deviation 0.23. Once 0.82 and five times 0.43: 0.49 and 0.16.
    assert assign([square(6, 5), square(4, 5), square(9, 5)], [BOX], topk=3).labels.tolist() == [BACKGROUND] * 3
    assert assign([square(6, 5), *[square(9, 5)] * 5], [BOX], topk=6).labels.tolist() == [0, *[BACKGROUND] * 5]


def test_candidates_come_from_every_level() -> None:
    # The big anchors of the second level are candidates though farther; the first level's anchor alone is positive.
    anchors = [BOX, square(8, 5), square(20, 5, 40), square(5, 25, 40)]
    found = assign(anchors, [BOX], level_sizes=(2, 2), topk=1)
    # IoU 1 and at most 0.06: mean + deviation is above 1 for two candidates, so nothing is positive.
    assert found.labels.tolist() == [BACKGROUND] * 4
    found = assign(anchors, [BOX], level_sizes=(2, 2), topk=2)
    assert found.labels.tolist() == [0, BACKGROUND, BACKGROUND, BACKGROUND]


def test_one_candidate_is_its_own_threshold() -> None:
    assert assign([square(6, 5)], [BOX], labels=[3]).labels.tolist() == [3]


def test_the_centre_must_lie_inside() -> None:
    long = [0, 0, 10, 10]
    beside = [[-30, 0, 10, 10]]  # overlaps the object, centre at x = -10
    assert assign(beside, [long]).labels.tolist() == [BACKGROUND]


def test_ties_go_to_the_lower_index() -> None:
    found = assign([BOX, BOX, BOX], [BOX], topk=1)
    assert found.labels.tolist() == [0, BACKGROUND, BACKGROUND]
    found = assign([BOX], [BOX, BOX], labels=[4, 2])
    assert found.labels.tolist() == [4]


def test_an_anchor_of_several_objects_goes_to_the_one_it_overlaps_most() -> None:
    found = assign([BOX], [square(5, 5, 30), square(5, 5, 12)], labels=[1, 2])
    assert found.labels.tolist() == [2]
    assert found.matched.tolist() == [1]


def test_nothing_there_and_ignore_regions() -> None:
    assert assign([BOX], EMPTY).labels.tolist() == [BACKGROUND]
    assert assign(EMPTY, [BOX]).labels.shape == (0,)
    found = assign([BOX, square(50, 50)], [BOX], ignore=[[-5, -5, 15, 15]], topk=1)
    assert found.labels.tolist() == [IGNORED, BACKGROUND]


def scene(seed: int = 0, anchors: int = 240, objects: int = 25) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def boxes(n: int) -> Tensor:
        corner = torch.randint(0, 90, (n, 2), generator=generator).float()
        return torch.cat((corner, corner + torch.randint(4, 40, (n, 2), generator=generator)), 1)

    return boxes(anchors), boxes(objects)


def algorithm_1(anchors: Tensor, boxes: Tensor, level_sizes: tuple[int, ...], k: int) -> list[int]:
    """The paper's algorithm, line by line; of several objects the one with the greatest IoU."""
    iou, best = pairwise_iou(anchors, boxes), [(-1.0, -1)] * len(anchors)
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    for g, box in enumerate(boxes):
        distance = (centre - (box[:2] + box[2:]) / 2).square().sum(1).tolist()
        rows, start = [], 0
        for size in level_sizes:
            rows += sorted(range(start, start + size), key=lambda a: (distance[a], a))[:k]
            start += size
        d = iou[rows, g]
        threshold = d.mean() + d.std()
        for a in rows:
            inside = bool((centre[a] > box[:2]).all() and (centre[a] < box[2:]).all())
            if iou[a, g] >= threshold and inside and iou[a, g] > best[a][0]:
                best[a] = (iou[a, g].item(), g)
    return [g for _, g in best]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_algorithm_of_the_paper_for_any_chunk(seed: int) -> None:
    anchors, boxes = scene(seed)
    sizes = (150, 80, 7, 3)
    expected = algorithm_1(anchors, boxes, sizes, 5)
    assert sum(g >= 0 for g in expected) > 20
    for elements in (1, 400, 1_000_000):
        found = assign(anchors, boxes, level_sizes=sizes, topk=5, chunk_elements=elements)
        assert found.labels.tolist() == expected
        assert torch.equal(found.matched, found.labels.clamp(min=0))


@pytest.mark.parametrize(
    ("key", "value"), [("topk", 0), ("chunk_elements", 0), ("ignore_overlap", 1.5), ("ignore_overlap", -0.1)]
)
def test_senseless_arguments_are_named(refuses: Refuses, key: Any, value: Any) -> None:
    with refuses(ValueError):
        ATSSAssigner(**{key: value})


def test_predictions_choose_with_alpha() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [5, 5, 15, 15]])
    predicted = torch.tensor([[0.0, 0, 2, 2], [0, 0, 10, 10], [0, 0, 2, 2]])
    scores = torch.tensor([[0.9], [0.4], [0.4]])
    targets = Targets(torch.tensor([[0.0, 0, 11, 11]]), torch.tensor([0]))
    candidates = Candidates(anchors, (3,), lambda: scores, lambda: predicted)
    chosen = {
        alpha: ATSSAssigner(topk=3, alpha=alpha)(candidates, targets).labels.tolist() for alpha in (None, 0.0, 1.0)
    }
    first = [0, BACKGROUND, BACKGROUND]
    # By the anchors or the scores the first, by the predicted boxes the second.
    assert chosen == {None: first, 0.0: first, 1.0: [BACKGROUND, 0, BACKGROUND]}
