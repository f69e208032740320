"""Kinds of errors on hand-drawn boxes, and the AP50 beneath them against the evaluator."""

from typing import Any

import numpy as np
import pytest
import torch

from detkit.evaluate.arrays import GroundTruth
from detkit.evaluate.coco import CocoEvaluator
from detkit.evaluate.errors import CORRECT, IGNORED, KINDS, Judged, ap50, cost_of_errors, count_errors, judge
from detkit.structures import ClassMap, Detections

CLASSES = ClassMap(("a", "b"), (0, 1))
OBJECT = [0.0, 0.0, 100.0, 100.0]


def truth(images: list[list[tuple[list[Any], int, bool]]]) -> GroundTruth:
    """images: per image a list of (box, label, crowd)."""
    rows = [row for image in images for row in image]
    boxes = np.array([r[0] for r in rows], np.float32).reshape(-1, 4)
    return GroundTruth(
        image_ids=np.arange(len(images)) + 10,
        offsets=np.cumsum([0, *map(len, images)]),
        boxes=boxes,
        labels=np.array([r[1] for r in rows], np.int64),
        crowd=np.array([r[2] for r in rows], bool),
        area=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float64),
    )


def evaluator(there: GroundTruth, images: list[list[tuple[list[Any], Any, int]]]) -> CocoEvaluator:
    """images: per image a list of (box, score, label)."""
    found = CocoEvaluator(CLASSES, there)
    for i, rows in enumerate(images):
        boxes = torch.tensor([r[0] for r in rows], dtype=torch.float32).reshape(-1, 4)
        scores, labels = torch.tensor([float(r[1]) for r in rows]), torch.tensor([int(r[2]) for r in rows])
        found.add([i + 10], [Detections(boxes, scores, labels.long())])
    return found


def kinds(objects: list[tuple[list[float], int, bool]], detections: list[tuple[list[float], float, int]]) -> Judged:
    there = truth([objects])
    return judge(there, evaluator(there, [detections]).shard())


def wide(iou: float) -> list[float]:
    """A box that overlaps OBJECT by that much."""
    return [0.0, 0.0, 100.0, 100.0 * iou]


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        (wide(0.5), 0, CORRECT),
        (wide(0.49), 0, "localisation"),
        (wide(0.1), 0, "localisation"),
        (wide(0.09), 0, "background"),
        (wide(0.5), 1, "classification"),
        (wide(0.49), 1, "both"),
        (wide(0.09), 1, "background"),
        ([200.0, 200.0, 300.0, 300.0], 0, "background"),
    ],
)
def test_kind_of_a_single_detection(box: list[float], label: int, kind: str) -> None:
    judged = kinds([(OBJECT, 0, False)], [(box, 0.9, label)])
    assert judged.kind.tolist() == [kind]
    counts = count_errors(judged)
    assert counts[kind] == (1 if label == 0 else 0)  # as many are counted as the class has objects


def test_the_second_on_an_object_is_a_duplicate_and_the_better_scored_has_it() -> None:
    judged = kinds([(OBJECT, 0, False)], [(OBJECT, 0.5, 0), (wide(0.6), 0.9, 0)])
    assert judged.kind.tolist() == [CORRECT, "duplicate"]
    assert judged.scores.tolist() == pytest.approx([0.9, 0.5])


def test_without_objects_all_is_background() -> None:
    there = truth([[], [(OBJECT, 0, False)]])
    judged = judge(there, evaluator(there, [[(OBJECT, 0.9, 0)], []]).shard())
    assert judged.kind.tolist() == ["background"]
    assert count_errors(judged)["missed"] == 1


def test_what_lies_on_an_ignore_region_counts_for_nothing() -> None:
    judged = kinds([(OBJECT, 0, True)], [(wide(0.3), 0.9, 0), (wide(0.3), 0.8, 1)])
    assert judged.kind.tolist() == [IGNORED, "background"]
    assert judged.truth_labels.tolist() == []


def test_missed_is_what_no_correct_or_nearly_correct_detection_touches() -> None:
    apart = [300.0, 0.0, 400.0, 100.0]
    judged = kinds([(OBJECT, 0, False), (apart, 0, False)], [(wide(0.3), 0.9, 0)])
    assert judged.touched.tolist() == [True, False]
    assert count_errors(judged)["missed"] == 1


def test_a_perfect_detector_makes_no_error_and_nothing_to_gain() -> None:
    other = [200.0, 0.0, 300.0, 50.0]
    judged = kinds([(OBJECT, 0, False), (other, 1, False)], [(OBJECT, 0.9, 0), (other, 0.2, 1)])
    assert count_errors(judged) == {CORRECT: 2} | dict.fromkeys(KINDS, 0)
    assert set(cost_of_errors(judged).values()) == {0.0}


def test_mending_the_only_error_gives_the_whole_ap() -> None:
    judged = kinds([(OBJECT, 0, False)], [(wide(0.3), 0.9, 0)])
    costs = cost_of_errors(judged)
    assert costs["localisation"] == 1.0
    assert all(costs[kind] == 0.0 for kind in costs if kind != "localisation")


def test_of_two_wrong_boxes_on_one_object_one_is_mended_and_one_dropped() -> None:
    judged = kinds([(OBJECT, 0, False)], [(wide(0.3), 0.9, 0), (wide(0.4), 0.8, 0)])
    assert cost_of_errors(judged)["localisation"] == 1.0


def random_case(seed: int) -> tuple[list[list[tuple[Any, ...]]], list[list[tuple[Any, ...]]]]:
    random = np.random.default_rng(seed)

    def box() -> list[Any]:
        x, y = random.uniform(0, 60, 2)
        return [x, y, x + random.uniform(20, 40), y + random.uniform(20, 40)]

    objects, found = [], []
    for _ in range(12):
        own = [(box(), int(random.integers(2)), bool(random.random() < 0.1)) for _ in range(random.integers(0, 5))]
        near = [
            (
                (np.array(b) + random.uniform(-8, 8, 4)).tolist(),
                random.choice([0.2, 0.5, 0.7, 0.9]),
                int(random.integers(2)),
            )
            for b, _, _ in own
            for _ in range(3)
        ]
        objects.append(own)
        found.append(near + [(box(), random.random(), int(random.integers(2))) for _ in range(3)])
    return objects, found


@pytest.mark.parametrize("seed", range(8))
def test_ap50_is_the_evaluators(seed: int) -> None:
    objects, found = random_case(seed)
    there = truth(objects)
    collected = evaluator(there, found)
    judged = judge(there, collected.shard())
    assert ap50(judged.kind == CORRECT, judged.labels, judged, judged.kind != IGNORED) == pytest.approx(
        collected.compute().metrics["ap50"], abs=1e-12
    )
    assert sum(count_errors(judged).values()) >= (judged.kind == CORRECT).any()


def test_an_object_of_negative_area_is_none_as_in_the_evaluation() -> None:
    there = truth([[(OBJECT, 0, False)]])
    there.area[:] = -1
    judged = judge(there, evaluator(there, [[(OBJECT, 0.9, 0)]]).sorted())
    assert judged.kind.tolist() == [IGNORED]
    assert count_errors(judged)["missed"] == 0
