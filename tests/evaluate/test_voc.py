"""PASCAL VOC's AP on hand-computed cases, and against its development kit's loop, written out."""

from __future__ import annotations

import numpy as np
import pytest

from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.coco import CocoEvaluator, best_of_images
from detkit.evaluate.options import EvaluatorOptions
from detkit.evaluate.report import format_table
from detkit.evaluate.voc import area_under_curve, eleven_points, voc_ap
from detkit.structures import ClassMap
from tests.compare.simulate import Skill, make_images, train
from tests.evaluate.test_coco import SQUARE, found, result_of, truth


def both(right: list[bool], objects: int) -> tuple[float, float]:
    return eleven_points(np.array(right, bool), objects), area_under_curve(np.array(right, bool), objects)


def test_by_hand() -> None:
    """Right, wrong, right, of 4 objects: recall 0.25 at precision 1, 0.5 at 2/3, nothing beyond."""
    eleven, area = both([True, False, True], 4)
    assert eleven == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # at 0, 0.1, 0.2; at 0.3, 0.4, 0.5
    assert area == pytest.approx((1 + 2 / 3) / 4)
    assert both([False, True], 1) == (pytest.approx(0.5), pytest.approx(0.5))
    assert both([True] * 10, 10) == (1.0, 1.0)
    assert both([], 3) == both([False, False], 3) == (0.0, 0.0)


def test_a_recall_on_a_point_reaches_it() -> None:
    """3 of 10 objects: 0.1 * 3 is more than 3 / 10 in floating point."""
    assert eleven_points(np.ones(3, bool), 10) == pytest.approx(4 / 11)


def test_difficult_objects_and_second_choices() -> None:
    difficult, near = [100.0, 100.0, 160.0, 160.0], [10.0, 10.0, 60.0, 50.0]
    gt = truth([[(SQUARE, 0, False), (near, 0, False), (difficult, 0, True)]])
    # The second detection overlaps SQUARE most, which is taken: COCO would give it the other object.
    rows = [(difficult, 0.95, 0), (SQUARE, 0.9, 0), ([10.0, 10.0, 60.0, 59.0], 0.8, 0)]
    result = result_of(gt, [found(rows)], voc=True)
    assert result.metrics["ap_voc12"] == pytest.approx(0.5)
    assert result.metrics["ap_voc07"] == pytest.approx(6 / 11)
    assert result.metrics["ap50"] == pytest.approx(1.0)
    assert result.per_class["dog"]["ap_voc07"] is None
    assert "VOC07  VOC12" in format_table(result)
    assert "VOC" not in format_table(result_of(gt, [found(rows)]))


def by_the_kit(gt: GroundTruth, shard: Shard, k: int) -> tuple[float, float]:
    """VOCevaldet.m and VOCap.m, line by line, but for boxes that are edges of pixels."""
    offsets = np.concatenate(([0], np.cumsum(shard.counts)))
    image_of = np.repeat(np.arange(len(shard.counts)), shard.counts)
    assert (np.diff(gt.image_ids) > 0).all()
    assert offsets[-1] == len(image_of)
    rows = [r for r in np.argsort(-shard.scores, kind="stable") if shard.labels[r] == k]
    taken: set[int] = set()
    tp, fp = [], []
    for row in rows:
        i, box = image_of[row], shard.boxes[row].astype(float)
        best, at = -np.inf, -1
        for j in range(gt.offsets[i], gt.offsets[i + 1]):
            if gt.labels[j] != k:
                continue
            other = gt.boxes[j].astype(float)
            wide, high = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
            if wide <= 0 or high <= 0:
                continue
            areas = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
            overlap = wide * high / (areas - wide * high)
            if overlap > best:
                best, at = overlap, j
        if best >= 0.5 and gt.crowd[at]:
            continue
        right = best >= 0.5 and at not in taken
        taken |= {at} if right else set()
        tp.append(right)
        fp.append(not right)
    objects = int(((gt.labels == k) & ~gt.crowd).sum())
    recall, precision = np.cumsum(tp) / objects, np.cumsum(tp) / (np.cumsum(tp) + np.cumsum(fp))
    eleven = sum(max(precision[recall >= t - 1e-9], default=0.0) for t in np.arange(0, 1.1, 0.1)) / 11
    mrec, mpre = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    at_steps = np.flatnonzero(np.diff(mrec)) + 1
    return eleven, float(((mrec[at_steps] - mrec[at_steps - 1]) * mpre[at_steps]).sum())


@pytest.mark.parametrize("seed", range(4))
def test_against_the_kit(seed: int) -> None:
    random = np.random.default_rng(seed)
    gt = make_images(random, 40)
    shard = train(random, gt, Skill(jitter=0.15, wrong=4.0), 1.0)
    shard = shard._replace(scores=np.round(shard.scores, 1))  # with equal scores
    values = voc_ap(gt, shard, 2)
    for k in range(2):
        assert (values["ap_voc07"][k], values["ap_voc12"][k]) == pytest.approx(by_the_kit(gt, shard, k), abs=1e-12)


def test_the_best_of_an_image_over_all_classes_count() -> None:
    """LVIS's limit: the hit of the second class is third of its image."""
    gt = truth([[(SQUARE, 1, False)], []])
    alarm = [100.0, 100.0, 150.0, 150.0]
    images = [found([(alarm, 0.9, 0), (SQUARE, 0.7, 1), (alarm, 0.8, 0)]), found([(alarm, 0.1, 0)])]
    assert result_of(gt, images).ap == 1.0
    assert result_of(gt, images, max_per_image=3).ap == 1.0
    limited = result_of(gt, images, max_per_image=2)
    assert (limited.ap, limited.num_detections) == (0.0, 3)


def test_the_best_of_images_keep_their_order() -> None:
    shard = Shard(
        np.array([1, 2, 3]), np.array([3, 0, 2]), np.zeros((5, 4), np.float32),
        np.array([0.1, 0.5, 0.5, 0.3, 0.9], np.float32), np.arange(5),
    )  # fmt: skip
    kept = best_of_images(shard, 1)
    assert (kept.labels.tolist(), kept.counts.tolist()) == ([1, 4], [1, 0, 1])
    assert best_of_images(shard, 2).labels.tolist() == [1, 2, 3, 4]


def test_the_precisions_average_to_the_figures() -> None:
    random = np.random.default_rng(0)
    gt = make_images(random, 30, classes=2)
    evaluator = CocoEvaluator(ClassMap(("a", "b", "c"), (1, 2, 3)), gt, EvaluatorOptions())
    evaluator.merge([train(random, gt, Skill(), 1.0)])
    result = evaluator.compute()
    assert result.precisions is not None
    ap, curve, per_class = result.precisions
    assert np.nanmean(ap[:, 0]) == pytest.approx(result.ap)
    assert curve[5].mean() == pytest.approx(result.ap75)
    assert per_class[1].mean() == pytest.approx(result.per_class["b"]["ap50"])
    assert np.isnan(ap[2]).all()
