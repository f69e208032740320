"""The evaluator against hand-drawn cases and against pycocotools' own documented calls."""

from __future__ import annotations

import contextlib
import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from detkit.data.datasets.classes import ClassOptions
from detkit.data.datasets.shapes import ShapesDataset
from detkit.evaluate.arrays import GroundTruth
from detkit.evaluate.coco import CocoEvaluator, CocoResult, ground_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.structures import ClassMap, Detections
from tests.refusals import Refuses

KEYS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
KEYS += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]
CLASSES = ClassMap(("cat", "dog"), (3, 90))


def found(rows: list[tuple[list[float], float, int]]) -> Detections:
    """Detections of (box, score, label)."""
    return Detections(
        torch.tensor([r[0] for r in rows]).reshape(-1, 4),
        torch.tensor([r[1] for r in rows]),
        torch.tensor([r[2] for r in rows], dtype=torch.int64),
    )


def truth(images: list[list[tuple[list[float], int, bool]]], ids: list[int] | None = None) -> GroundTruth:
    """Ground truth of images of (box, label, crowd)."""
    rows = list(itertools.chain(*images))
    boxes = np.array([r[0] for r in rows], np.float32).reshape(-1, 4)
    return GroundTruth(
        np.array(ids or range(1, len(images) + 1)),
        np.cumsum([0, *map(len, images)]),
        boxes,
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], bool),
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64),
    )


def result_of(gt: GroundTruth, detections: list[Detections], **options: Any) -> CocoResult:
    evaluator = CocoEvaluator(CLASSES, gt, EvaluatorOptions(**options))
    evaluator.add(gt.image_ids.tolist(), detections)
    return evaluator.compute()


SQUARE = [10.0, 10.0, 60.0, 60.0]
NOTHING = found([])


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
class TestByHand:
    def test_a_hit_and_a_later_false_alarm_is_perfect(self, engine: str) -> None:
        """Recall 1 is reached at precision 1, so what follows costs nothing."""
        gt = truth([[(SQUARE, 0, False)], [(SQUARE, 0, False)]])
        alarm = ([100.0, 100.0, 150.0, 150.0], 0.1, 0)
        result = result_of(gt, [found([(SQUARE, 0.9, 0), alarm]), found([(SQUARE, 0.8, 0)])], engine=engine)
        assert result.ap == pytest.approx(1.0, abs=1e-12)
        assert result.metrics["ar1"] == 1.0

    def test_a_false_alarm_before_every_hit_halves_precision(self, engine: str) -> None:
        gt = truth([[(SQUARE, 0, False)]])
        alarm = ([100.0, 100.0, 150.0, 150.0], 0.95, 0)
        result = result_of(gt, [found([alarm, (SQUARE, 0.9, 0)])], engine=engine)
        assert result.ap == pytest.approx(0.5)

    def test_iou_of_seven_tenths_counts_at_five_of_ten_thresholds(self, engine: str) -> None:
        """IoU 0.72: right at 0.50, 0.55, ..., 0.70."""
        gt = truth([[([0.0, 0.0, 100.0, 100.0], 0, False)]])
        result = result_of(gt, [found([([0.0, 0.0, 72.0, 100.0], 0.9, 0)])], engine=engine)
        assert result.ap == pytest.approx(0.5)
        assert result.metrics["ap50"] == pytest.approx(1.0)
        assert result.metrics["ap75"] == 0.0

    def test_detections_in_a_crowd_are_neither_right_nor_wrong(self, engine: str) -> None:
        crowd = [100.0, 100.0, 200.0, 200.0]
        inside = [110.0, 110.0, 130.0, 130.0]
        gt = truth([[(SQUARE, 0, False), (crowd, 0, True)]])
        rows = [(inside, 0.99, 0), (inside, 0.98, 0), (SQUARE, 0.9, 0)]
        assert result_of(gt, [found(rows)], engine=engine).ap == pytest.approx(1.0)

    def test_another_class_or_image_does_not_count(self, engine: str) -> None:
        gt = truth([[(SQUARE, 0, False)], []])
        result = result_of(gt, [found([(SQUARE, 0.9, 1)]), found([(SQUARE, 0.9, 0)])], engine=engine)
        assert result.ap == 0.0
        assert result.per_class["dog"]["ap"] is None

    def test_without_ground_truth_there_is_no_figure(self, engine: str) -> None:
        result = result_of(truth([[], []]), [found([(SQUARE, 0.9, 1)]), NOTHING], engine=engine)
        assert set(result.metrics.values()) == {None}
        assert set(result.per_class["cat"].values()) == {None}

    def test_without_detections_figures_are_zero(self, engine: str) -> None:
        result = result_of(truth([[(SQUARE, 0, False)], []]), [NOTHING, NOTHING], engine=engine)
        assert result.ap == 0.0
        assert result.metrics["ap_medium"] == 0.0
        assert result.metrics["ap_small"] is None

    def test_only_the_best_scoring_detections_count(self, engine: str) -> None:
        """The hit ranks third of its image and class, with room for two."""
        alarms = [([100.0 + 60 * i, 100.0, 150.0 + 60 * i, 150.0], 0.95, 0) for i in range(2)]
        gt = truth([[(SQUARE, 0, False)]])
        rows = [*alarms, (SQUARE, 0.9, 0)]
        assert result_of(gt, [found(rows)], engine=engine, max_detections=(1, 2, 3)).ap == pytest.approx(1 / 3)
        result = result_of(
            gt, [found([*alarms, *alarms[:1], (SQUARE, 0.9, 0)])], engine=engine, max_detections=(1, 2, 3)
        )
        assert result.ap == 0.0
        assert set(result.metrics) >= {"ar1", "ar2", "ar3"}

    def test_own_area_limits(self, engine: str) -> None:
        result = result_of(
            truth([[(SQUARE, 0, False)]]),
            [found([(SQUARE, 0.9, 0)])],
            engine=engine,
            area_limits=(3000.0, 4000.0),
        )
        assert result.metrics["ap_small"] == pytest.approx(1.0)
        assert result.metrics["ap_medium"] is None
        assert result.num_objects["cat"] == {"all": 1, "small": 1, "medium": 0, "large": 0}


def random_case(seed: int) -> tuple[ClassMap, GroundTruth, list[Detections]]:
    """30 images, some empty, some with more than 100 boxes of a class; 5 classes, one without objects.

    Scores have two digits, so ties abound; image ids are neither ascending nor dense.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, 2000, 7))[:30].tolist()

    def boxes(n: int) -> np.ndarray:
        corner = rng.random((n, 2)) * 300
        return np.concatenate((corner, corner + np.exp(rng.uniform(1.5, 5.3, (n, 2)))), axis=1).astype(np.float32)

    images, detections = [], []
    for i in range(len(ids)):
        own = boxes(0 if i % 7 == 3 else int(rng.integers(1, 9)))
        labels = rng.integers(0, 4, len(own))
        crowd = rng.random(len(own)) < 0.2
        images.append([(b.tolist(), int(k), bool(c)) for b, k, c in zip(own, labels, crowd, strict=True)])
        n = 150 if i % 10 == 0 else int(rng.integers(0, 25))
        pick = rng.integers(0, max(len(own), 1), n)
        sides = np.tile(own[:, 2:] - own[:, :2], 2)
        near = own[pick] + rng.normal(0, 0.05, (n, 4)) * sides[pick] if len(own) else boxes(n)
        noise = rng.random((n, 1)) < 0.3
        box = np.where(noise, boxes(n), near).astype(np.float32)
        box[:, 2:] = np.maximum(box[:, 2:], box[:, :2] + 1)
        label = labels[pick] if len(own) else rng.integers(0, 5, n)
        label = np.where(rng.random(n) < 0.2, rng.integers(0, 5, n), label)
        if i % 10 == 0:
            label[:] = label[:1]
        score = rng.random(n).round(2).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        detections.append(Detections(*(torch.from_numpy(a[order]) for a in (box, score, label))))
    gt = truth(images, ids)
    # COCO's areas are those of masks, so they are not width times height.
    gt.area[:] *= rng.uniform(0.5, 1.0, len(gt.area))
    return ClassMap(tuple("abcde"), (90, 3, 17, 1, 2)), gt, detections


def oracle(classes: ClassMap, gt: GroundTruth, detections: list[Detections]) -> tuple[Any, Any]:
    """pycocotools as its users call it; category ids in label order, so that its arrays are, too."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(b: Any) -> list[float]:
        x1, y1, x2, y2 = (float(v) for v in b)
        return [x1, y1, x2 - x1, y2 - y1]

    owner = np.repeat(gt.image_ids, np.diff(gt.offsets))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": int(i)} for i in gt.image_ids],
            "categories": [{"id": k + 1, "name": n} for k, n in enumerate(classes.names)],
            "annotations": [
                {
                    "id": n + 1, "image_id": int(owner[n]), "category_id": int(gt.labels[n]) + 1,
                    "bbox": xywh(gt.boxes[n]), "area": float(gt.area[n]), "iscrowd": int(gt.crowd[n]),
                }
                for n in range(len(gt.boxes))
            ],
        }  # fmt: skip
        coco.createIndex()
        results = [
            {"image_id": int(i), "category_id": int(k) + 1, "bbox": xywh(b), "score": float(s)}
            for i, d in zip(gt.image_ids, detections, strict=True)
            for b, s, k in zip(d.boxes, d.scores, d.labels, strict=True)
        ]
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats, run.eval


def none_is_minus_one(values: list[float | None]) -> np.ndarray:
    return np.array([-1.0 if v is None else v for v in values])


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed: int) -> None:
    classes, gt, detections = random_case(seed)
    evaluator = CocoEvaluator(classes, gt)
    for i in range(0, len(detections), 4):
        evaluator.add(gt.image_ids[i : i + 4].tolist(), detections[i : i + 4])
    result = evaluator.compute()
    stats, arrays = oracle(classes, gt, detections)
    assert 0.05 < stats[:6].min() < stats[:6].max() < 0.95
    assert max(len(d) for d in detections) > 100
    np.testing.assert_allclose(none_is_minus_one([result.metrics[k] for k in KEYS]), stats, rtol=0, atol=1e-9)
    for k, name in enumerate(classes.names):
        own = arrays["precision"][:, :, k, 0, 2]
        expected = own[own > -1].mean() if (own > -1).any() else -1.0
        assert none_is_minus_one([result.per_class[name]["ap"]])[0] == pytest.approx(expected, abs=1e-9)
        for area, column in (("small", 1), ("medium", 2), ("large", 3)):
            recall = arrays["recall"][:, k, column, 2]
            expected = recall[recall > -1].mean() if (recall > -1).any() else -1.0
            value = none_is_minus_one([result.per_class[name][f"ar_{area}"]])[0]
            assert value == pytest.approx(expected, abs=1e-9)
    assert result.per_class["e"]["ap"] is None


def test_both_engines_agree_on_everything() -> None:
    classes, gt, detections = random_case(9)
    results = []
    for engine in ("faster", "pycocotools"):
        evaluator = CocoEvaluator(classes, gt, EvaluatorOptions(engine=engine))
        evaluator.add(gt.image_ids.tolist(), detections)
        results.append(evaluator.compute())
    for name in (None, *classes.names):
        a, b = ((r.per_class[name] if name else r.metrics) for r in results)
        np.testing.assert_allclose(none_is_minus_one(list(a.values())), none_is_minus_one(list(b.values())), atol=1e-9)


def test_shards_in_any_order_give_the_same_bits() -> None:
    classes, gt, detections = random_case(5)
    whole = CocoEvaluator(classes, gt)
    whole.add(gt.image_ids.tolist(), detections)
    ranks = [CocoEvaluator(classes, gt) for _ in range(3)]
    for i in np.random.default_rng(0).permutation(len(detections)):
        ranks[i % 3].add([int(gt.image_ids[i])], [detections[i]])
    merged = CocoEvaluator(classes, gt)
    merged.merge(r.shard() for r in reversed(ranks))
    assert merged.compute() == whole.compute()


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
def test_ground_truth_as_predictions_gives_one(engine: str) -> None:
    dataset = ShapesDataset(num_images=30, split="val")
    gt = ground_truth_from(dataset)
    assert gt.crowd.any()
    evaluator = CocoEvaluator(dataset.classes, gt, EvaluatorOptions(engine=engine))  # type: ignore[arg-type]
    for i, image_id in enumerate(gt.image_ids.tolist()):
        a = dataset.records.annotation(i)
        keep = torch.from_numpy(~a.is_ignore)
        boxes, labels = torch.from_numpy(a.boxes.copy())[keep], torch.from_numpy(a.labels.copy())[keep]
        evaluator.add([image_id], [Detections(boxes, torch.ones(len(boxes)), labels)])
    result = evaluator.compute()
    defined = [v for k, v in result.metrics.items() if k.startswith("ap") and v is not None]
    assert len(defined) >= 4
    assert defined == pytest.approx([1.0] * len(defined), abs=1e-12)


def test_ground_truth_from_a_data_set_keeps_images_without_objects() -> None:
    dataset = ShapesDataset(num_images=40, split="train")
    gt = ground_truth_from(dataset)
    counts = np.diff(gt.offsets)
    assert len(counts) == 40
    assert (counts == 0).any()
    assert counts.tolist() == [len(dataset.records.annotation(i).boxes) for i in range(40)]


class TestErrors:
    gt = truth([[(SQUARE, 0, False)], []], ids=[7, 12])

    def test_an_image_twice(self, refuses: Refuses) -> None:
        evaluator = CocoEvaluator(CLASSES, self.gt)
        evaluator.add([7, 12], [NOTHING, NOTHING])
        evaluator.add([12], [NOTHING])
        with refuses(ValueError):
            evaluator.compute()

    def test_an_image_left_out(self, refuses: Refuses) -> None:
        evaluator = CocoEvaluator(CLASSES, self.gt)
        evaluator.add([12], [NOTHING])
        with refuses(ValueError):
            evaluator.compute()

    def test_an_unknown_image(self, refuses: Refuses) -> None:
        evaluator = CocoEvaluator(CLASSES, self.gt)
        evaluator.add([7, 12, 99], [NOTHING] * 3)
        with refuses(ValueError):
            evaluator.compute()

    @pytest.mark.parametrize("label", [-1, 2])
    def test_a_label_beyond_the_classes(self, refuses: Refuses, label: int) -> None:
        with refuses(ValueError):
            CocoEvaluator(CLASSES, self.gt).add([7], [found([(SQUARE, 0.5, label)])])

    @pytest.mark.parametrize(("value", "score"), [(float("nan"), 0.5), (1.0, float("inf"))])
    def test_what_is_not_finite(self, refuses: Refuses, value: float, score: float) -> None:
        with refuses(ValueError):
            CocoEvaluator(CLASSES, self.gt).add([12], [found([([value, 0.0, 5.0, 5.0], score, 0)])])

    def test_lengths_that_differ(self, refuses: Refuses) -> None:
        with refuses(ValueError):
            CocoEvaluator(CLASSES, self.gt).add([7, 12], [NOTHING])

    def test_ground_truth_that_does_not_fit(self, refuses: Refuses) -> None:
        with refuses(ValueError):
            truth([[], []], ids=[4, 4])
        with refuses(ValueError):
            GroundTruth(self.gt.image_ids, self.gt.offsets[:-1], *list(vars(self.gt).values())[2:])


def test_a_detection_on_an_ignored_class_costs_nothing_in_any_class() -> None:
    dataset = ShapesDataset(num_images=30, split="val")
    dataset.choose_classes(ClassOptions(ignore_classes=["star"]))
    gt = ground_truth_from(dataset)
    number = len(dataset.classes)
    assert gt.crowd.sum() > dataset.records.is_ignore.sum() > 0
    evaluator = CocoEvaluator(dataset.classes, gt)
    for i, image_id in enumerate(gt.image_ids.tolist()):
        a = dataset.records.annotation(i)
        boxes, labels, ignored = (torch.from_numpy(x.copy()) for x in (a.boxes, a.labels, a.is_ignore))
        on_stars = boxes[ignored & (labels == -1)]
        every = torch.arange(number).repeat_interleave(len(on_stars))  # found as each of the classes
        labels = torch.cat((every, labels[~ignored]))
        boxes = torch.cat((on_stars.repeat(number, 1), boxes[~ignored]))
        evaluator.add([image_id], [Detections(boxes, torch.ones(len(boxes)), labels)])
    result = evaluator.compute()
    assert result.num_detections > sum(n["all"] for n in result.num_objects.values())
    assert result.ap == pytest.approx(1.0, abs=1e-12)
