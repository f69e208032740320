from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.assigners.base import assign as assign_by
from detkit.assigners.task_aligned import TaskAlignedAssigner
from detkit.boxes import pairwise_iou
from detkit.coders.delta import DeltaCoder
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets
from tests.refusals import Refuses

EMPTY = torch.zeros(0, 4)
BOX = [0, 0, 10, 10]
CODER = DeltaCoder()


def assign(
    anchors: Any,
    boxes: Any,
    scores: Any,
    labels: Any = None,
    ignore: Any = EMPTY,
    predicted: Any = None,
    **options: Any,
) -> Assignment:
    anchors, boxes = torch.as_tensor(anchors).float(), torch.as_tensor(boxes).float().reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    predicted = anchors if predicted is None else torch.as_tensor(predicted).float()
    scores = torch.as_tensor(scores).float()
    targets = Targets(boxes, labels, torch.as_tensor(ignore).float())
    candidates = Candidates(anchors, (len(anchors),), lambda: scores, lambda: decoded(predicted, anchors))
    return assign_by(TaskAlignedAssigner(**options), candidates, targets)


def decoded(predicted: Tensor, anchors: Tensor) -> Tensor:
    """Boxes as they come out of a coder, rounding included."""
    return CODER.decode(CODER.encode(predicted, anchors), anchors)


def test_score_and_overlap_decide_by_hand() -> None:
    # IoU 1, 0.5, 0.25 and scores 0.01, 0.8, 0.9: s u = 0.01, 0.4, 0.225 and s u^6 = 0.01, 0.0125, 0.00022.
    anchors = [[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 5, 5]]
    scores = [[0.01], [0.8], [0.9]]
    options = {"topk": 1, "centre_inside": False}
    assert assign(anchors, [BOX], scores, **options).labels.tolist() == [BACKGROUND, 0, BACKGROUND]
    assert assign(anchors, [BOX], scores, alpha=0.0, **options).labels.tolist() == [0, BACKGROUND, BACKGROUND]
    two = assign(anchors, [BOX], scores, beta=1.0, topk=2, centre_inside=False)
    assert two.labels.tolist() == [BACKGROUND, 0, 0]
    # The best aligned gets the greatest IoU of the two, the other in proportion.
    assert two.quality is not None
    torch.testing.assert_close(two.quality[1:], torch.tensor([0.5, 0.5 * 0.225 / 0.4]))


def test_the_prediction_counts_and_not_the_anchor() -> None:
    anchors = [[0, 0, 8, 8], [1, 1, 9, 9]]
    found = assign(anchors, [BOX], [[0.5], [0.5]], predicted=[BOX, [0, 0, 5, 5]], topk=1)
    assert found.labels.tolist() == [0, BACKGROUND]
    assert found.quality[0] == pytest.approx(1)


def test_the_score_is_that_of_the_objects_class() -> None:
    anchors, scores = [BOX, BOX], [[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]]
    assert assign(anchors, [BOX], scores, labels=[2], topk=1).labels.tolist() == [BACKGROUND, 2]
    assert assign(anchors, [BOX], scores, labels=[0], topk=1).labels.tolist() == [0, BACKGROUND]


def test_the_centre_must_lie_inside_unless_told_otherwise() -> None:
    anchors = [[0, 0, 10, 30]]
    assert assign(anchors, [BOX], [[0.5]], predicted=[BOX]).labels.tolist() == [BACKGROUND]
    assert assign(anchors, [BOX], [[0.5]], predicted=[BOX], centre_inside=False).labels.tolist() == [0]


def test_ties_go_to_the_lower_index_and_conflicts_to_the_best_aligned() -> None:
    assert assign([BOX] * 3, [BOX], [[0.5]] * 3, topk=2).labels.tolist() == [0, 0, BACKGROUND]
    assert assign([BOX], [BOX, BOX], [[0.5, 0.5]], labels=[1, 0]).labels.tolist() == [1]
    found = assign([BOX], [BOX, [0, 0, 10, 12]], [[0.1, 0.9]], labels=[0, 1])
    assert (found.labels.tolist(), found.matched.tolist()) == ([1], [1])


def test_a_prediction_that_misses_is_never_taken() -> None:
    found = assign([BOX, BOX], [BOX], [[0.9], [0.0]], predicted=[[50, 50, 60, 60], [0, 0, 10, 9]])
    assert found.labels.tolist() == [BACKGROUND, 0]


def test_nothing_there_ignore_regions_and_broken_predictions() -> None:
    assert assign([BOX], EMPTY, [[0.5]]).labels.tolist() == [BACKGROUND]
    assert assign(EMPTY, [BOX], torch.zeros(0, 1)).labels.shape == (0,)
    # The ignored one would have been the best and its IoU the greatest.
    found = assign([BOX, [0, 0, 10, 8]], [BOX], [[0.9], [0.5]], ignore=[BOX], ignore_overlap=0.9)
    assert found.labels.tolist() == [IGNORED, IGNORED]
    found = assign([BOX, [0, 0, 10, 8]], [BOX], [[0.9], [0.5]], ignore=[[0, 8, 10, 10]], ignore_overlap=0.1)
    assert found.labels.tolist() == [IGNORED, 0]
    assert found.quality[1] == pytest.approx(0.8)
    nan = float("nan")
    found = assign([BOX, BOX], [BOX], [[nan], [0.5]], predicted=[BOX, [nan] * 4])
    assert found.labels.tolist() == [BACKGROUND, BACKGROUND]


def scene(seed: int) -> tuple[Tensor, Tensor, Tensor, list[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def boxes(n: int) -> Tensor:
        corner = torch.randint(0, 90, (n, 2), generator=generator).float()
        return torch.cat((corner, corner + torch.randint(4, 40, (n, 2), generator=generator)), 1)

    scores = torch.rand(240, 3, generator=generator)
    return boxes(240), boxes(25), scores, torch.randint(0, 3, (25,), generator=generator).tolist(), boxes(240)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("centre_inside", [True, False])
def test_equals_plain_loops_for_any_chunk(seed: int, centre_inside: bool) -> None:
    anchors, boxes, scores, labels, predicted = scene(seed)
    u = pairwise_iou(decoded(predicted, anchors), boxes)
    t = scores[:, labels] * u**6
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    owner: list[tuple[float, int]] = [(0.0, -1)] * len(anchors)
    for g, box in enumerate(boxes):
        inside = ((centre > box[:2]) & (centre < box[2:])).all(1) | (not centre_inside)
        best = sorted(range(len(anchors)), key=lambda a: (-float(t[a, g] * inside[a]), a))[:6]
        for a in best:
            if inside[a] and t[a, g] > owner[a][0]:
                owner[a] = (t[a, g].item(), g)
    expected = [g for _, g in owner]
    assert sum(g >= 0 for g in expected) > 25
    results = [
        assign(anchors, boxes, scores, labels, predicted=predicted, topk=6,
               centre_inside=centre_inside, chunk_elements=elements)
        for elements in (1, 500, 1_000_000)
    ]  # fmt: skip
    for found in results:
        positive = found.labels >= 0
        assert [int(m) if p else -1 for p, m in zip(positive, found.matched, strict=True)] == expected
        assert torch.equal(found.quality, results[0].quality)
        for g in set(expected) - {-1}:
            mine = torch.tensor([e == g for e in expected])
            assert found.labels[mine].tolist() == [labels[g]] * int(mine.sum())
            torch.testing.assert_close(found.quality[mine], t[mine, g] / t[mine, g].max() * u[mine, g].max())


@pytest.mark.parametrize(
    ("key", "value"),
    [("topk", 0), ("chunk_elements", 0), ("ignore_overlap", 2.0), ("alpha", -1.0), ("beta", 0.0)],
)
def test_senseless_arguments_are_named(refuses: Refuses, key: Any, value: Any) -> None:
    with refuses(ValueError):
        TaskAlignedAssigner(**{key: value})


def test_places_may_be_taken_by_anchors_outside_the_object() -> None:
    # The second anchor's centre lies outside; its prediction fits best.
    anchors, scores = [[0, 0, 8, 8], [20, 20, 30, 30]], [[0.5], [0.9]]
    options: dict[str, Any] = {"predicted": [[0, 0, 10, 9], BOX], "topk": 1}
    assert assign(anchors, [BOX], scores, **options).labels.tolist() == [0, BACKGROUND]
    assert assign(anchors, [BOX], scores, topk_of="all", **options).labels.tolist() == [BACKGROUND, BACKGROUND]


def test_a_conflict_goes_to_the_better_aligned_or_to_the_better_overlapped() -> None:
    boxes, scores = [[0, 0, 10, 10], [0, 0, 10, 8]], [[0.1, 0.9]]
    options: dict[str, Any] = {"labels": [0, 1], "beta": 1.0}
    aligned = assign([BOX], boxes, scores, **options)
    overlapped = assign([BOX], boxes, scores, conflicts="overlaps", **options)
    assert (aligned.labels.tolist(), overlapped.labels.tolist()) == ([1], [0])
    assert overlapped.quality is not None
    assert overlapped.quality.tolist() == [1]
    smoothed = assign([BOX], boxes, scores, conflicts="overlaps", smoothing=0.1, **options)
    assert smoothed.quality is not None
    assert smoothed.quality.tolist() == pytest.approx([0.5])
