"""COCO average precision and recall of boxes (cocodataset.org/#detection-eval).

The evaluator keeps flat arrays; the engine's dictionaries are made once, in `compute`. Images are
numbered by ascending image id, so the result does not depend on the order or the rank in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from detkit.boxes import to_xyxy
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import ANY_CLASS, Records, Truth
from detkit.evaluate.arrays import AREAS, GroundTruth, Shard
from detkit.evaluate.engines import run_engine
from detkit.evaluate.options import EvaluatorOptions
from detkit.evaluate.voc import voc_ap
from detkit.structures import ClassMap, Detections
from detkit.utils.console import shorten_list
from detkit.utils.types import Floats, Ints


class Precisions(NamedTuple):
    """AP at each IoU, and curves; NaN without ground truth. K classes, T = 10 IoUs (0.50 to 0.95), R = 101 recalls.

    ap: (K, areas, T). curve: (T, R) precision at each recall, mean over the classes. per_class: (K, R), at IoU 0.50.
    """

    ap: Floats
    curve: Floats
    per_class: Floats


@dataclass(frozen=True)
class CocoResult:
    """The figures of a detector on a data set; None for those without ground truth.

    metrics: ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar100 (by `max_detections`),
    ar_small, ar_medium, ar_large, and ap_voc07, ap_voc12 with `voc`. per_class: class name -> the same keys.
    num_objects: class name -> area range -> ground-truth boxes that are not crowd. seconds: where the time went.
    precisions: what the figures are means of. losses: those of the validation images, `loss` and its terms, where a
    training computes them.
    """

    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    num_objects: dict[str, dict[str, int]]
    num_images: int
    num_detections: int
    area_limits: tuple[float, float] = (1024.0, 9216.0)
    seconds: dict[str, float] = field(default_factory=dict)
    precisions: Precisions | None = field(default=None, repr=False, compare=False)
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def ap(self) -> float | None:
        """Average precision: mean over classes and IoU 0.50:0.05:0.95."""
        return self.metrics["ap"]

    @property
    def ap50(self) -> float | None:
        """AP at IoU 0.50."""
        return self.metrics["ap50"]

    @property
    def ap75(self) -> float | None:
        """AP at IoU 0.75."""
        return self.metrics["ap75"]

    @property
    def ap_small(self) -> float | None:
        """AP of objects below the first of `area_limits`, in square pixels."""
        return self.metrics["ap_small"]

    @property
    def ap_medium(self) -> float | None:
        """AP of objects between the two."""
        return self.metrics["ap_medium"]

    @property
    def ap_large(self) -> float | None:
        """AP of objects above the second."""
        return self.metrics["ap_large"]


class CocoEvaluator:
    """Collects detections, image by image, and compares them with the ground truth."""

    def __init__(self, classes: ClassMap, truth: GroundTruth, options: EvaluatorOptions | None = None) -> None:
        self.classes, self.truth, self.options = classes, truth, options or EvaluatorOptions()
        self._shards: list[Shard] = []

    def add(self, image_ids: Sequence[int], detections: Sequence[Detections]) -> None:
        """Adds the detections of each image, boxes in pixels of the image on disk."""
        if len(image_ids) != len(detections):
            raise ValueError(f"{len(image_ids)} image ids but detections of {len(detections)} images")
        if not detections:
            return
        boxes, scores, labels = (
            np.concatenate([getattr(d, name).detach().cpu().numpy() for d in detections])
            for name in ("boxes", "scores", "labels")
        )
        shard = Shard(
            np.asarray(image_ids, dtype=np.int64),
            np.array([len(d) for d in detections], dtype=np.int64),
            boxes.astype(np.float32, copy=False).reshape(-1, 4),
            scores.astype(np.float32, copy=False),
            labels.astype(np.int64, copy=False),
        )
        self._check(shard)
        self._shards.append(shard)

    def shard(self) -> Shard:
        """Everything that was added here, as plain arrays to send to another process."""
        if not self._shards:
            empty = np.zeros(0, np.int64)
            return Shard(empty, empty, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), empty)
        return Shard(*(np.concatenate(parts) for parts in zip(*self._shards, strict=True)))

    def merge(self, shards: Iterable[Shard]) -> None:
        """Adds the detections of other processes. An image must come from one of them alone."""
        self._shards.extend(shards)

    def compute(self) -> CocoResult:
        """The figures over all images of the ground truth, each of which must have been added once."""
        detections = self.sorted()
        precision, recall = run_engine(self.truth, detections, len(self.classes), self.options)

        def summarize(classes: slice) -> dict[str, float | None]:
            return _summarize(precision[:, :, classes], recall[:, classes], self.options)

        metrics = summarize(slice(None))
        per_class = {name: summarize(slice(k, k + 1)) for k, name in enumerate(self.classes.names)}
        if self.options.voc:
            for key, values in voc_ap(self.truth, detections, len(self.classes)).items():
                known = [value for value in values if value is not None]
                metrics[key] = sum(known) / len(known) if known else None
                for figures, value in zip(per_class.values(), values, strict=True):
                    figures[key] = value
        return CocoResult(
            metrics=metrics,
            per_class=per_class,
            num_objects=_count_objects(self.truth, self.classes, self.options),
            num_images=len(detections.image_ids),
            num_detections=len(detections.scores),
            area_limits=self.options.area_limits,
            precisions=_precisions(precision[..., -1]),
        )

    def _check(self, shard: Shard) -> None:
        """Raises ValueError for what the engine would silently count as a miss."""
        owner = np.repeat(shard.image_ids, shard.counts)
        wrong = (shard.labels < 0) | (shard.labels >= len(self.classes))
        if wrong.any():
            raise ValueError(
                f"label {shard.labels[wrong][0]} of image {owner[wrong][0]} is not one of the "
                f"{len(self.classes)} classes (0..{len(self.classes) - 1})"
            )
        wrong = ~(np.isfinite(shard.boxes).all(axis=1) & np.isfinite(shard.scores))
        if wrong.any():
            raise ValueError(f"boxes or scores are not finite in image {_first_few(np.unique(owner[wrong]))}")

    def sorted(self) -> Shard:
        """The shards as one, by ascending image id; the order within an image is kept.

        With `max_per_image`, an image has its best-scoring ones alone.
        """
        shard = self.shard()
        ids, counts = np.unique(shard.image_ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"detections of the same image were added twice: image {_first_few(ids[counts > 1])}")
        missing, unknown = np.setdiff1d(self.truth.image_ids, ids), np.setdiff1d(ids, self.truth.image_ids)
        if len(unknown):
            raise ValueError(
                f"detections of {len(unknown)} images that are not in the ground truth: {_first_few(unknown)}"
            )
        if len(missing):
            raise ValueError(
                f"{len(missing)} of {len(self.truth.image_ids)} images were never added: {_first_few(missing)}; "
                "an image without detections needs an empty entry"
            )
        order = np.argsort(shard.image_ids)
        rows = np.argsort(np.repeat(shard.image_ids, shard.counts), kind="stable")
        joined = Shard(
            shard.image_ids[order], shard.counts[order], shard.boxes[rows], shard.scores[rows], shard.labels[rows]
        )
        return joined if self.options.max_per_image is None else best_of_images(joined, self.options.max_per_image)


def best_of_images(shard: Shard, most: int) -> Shard:
    """The `most` best-scoring detections of every image; of equal scores the first ones."""
    image = np.repeat(np.arange(len(shard.counts)), shard.counts)
    order = np.lexsort((-shard.scores, image))  # stable; image is ascending, so it stays as it is
    rank = np.arange(len(image)) - np.repeat(np.cumsum(shard.counts) - shard.counts, shard.counts)
    kept = np.sort(order[rank < most])
    return Shard(
        shard.image_ids, np.minimum(shard.counts, most), shard.boxes[kept], shard.scores[kept], shard.labels[kept]
    )


def _first_few(ids: Ints) -> str:
    return shorten_list(ids.tolist(), 5)


def _summarize(p: Floats, r: Floats, options: EvaluatorOptions) -> dict[str, float | None]:
    """Means of precision (T, R, K, areas, limits) and recall (T, K, areas, limits), leaving -1 out."""

    def mean(values: Floats) -> float | None:
        valid = values[values > -1]
        return float(valid.mean()) if valid.size else None

    metrics = {"ap": mean(p[..., 0, -1]), "ap50": mean(p[0, ..., 0, -1]), "ap75": mean(p[5, ..., 0, -1])}
    metrics |= {f"ap_{area}": mean(p[..., a, -1]) for a, area in enumerate(AREAS) if a}
    metrics |= {f"ar{most}": mean(r[..., 0, m]) for m, most in enumerate(options.max_detections)}
    return metrics | {f"ar_{area}": mean(r[..., a, -1]) for a, area in enumerate(AREAS) if a}


def _precisions(precision: Floats) -> Precisions:
    """Of precision (T, R, K, areas), in which -1 is for classes without ground truth."""
    known = np.where(precision > -1, precision, np.nan)
    ap = known.mean(axis=1).transpose(1, 2, 0)
    present = ~np.isnan(ap[:, 0, 0])
    curve = known[:, :, present, 0].mean(axis=2) if present.any() else np.full(known.shape[:2], np.nan)
    return Precisions(ap, curve, known[0, :, :, 0].T)


def _count_objects(truth: GroundTruth, classes: ClassMap, options: EvaluatorOptions) -> dict[str, dict[str, int]]:
    counts = {}
    for area, (low, high) in zip(AREAS, options.area_ranges, strict=True):
        chosen = ~truth.crowd & (truth.area >= low) & (truth.area <= high)
        counts[area] = np.bincount(truth.labels[chosen], minlength=len(classes))
    return {name: {area: int(counts[area][k]) for area in AREAS} for k, name in enumerate(classes.names)}


def ground_truth_from(dataset: DetectionDataset) -> GroundTruth:
    """The ground truth of a data set: the boxes of its file, as they are.

    Ignore regions (crowd, VOC's difficult) become crowd boxes; one for every class (of `ignore_classes`)
    becomes one of each.
    """
    records = dataset.records
    return _ground_truth(records, records.truth, len(dataset.classes))


def training_truth_from(dataset: DetectionDataset) -> GroundTruth:
    """Ground truth of the boxes that training uses: inside their images, without the unusable ones."""
    return _ground_truth(dataset.records, dataset.records.training_truth(), len(dataset.classes))


def _ground_truth(records: Records, truth: Truth, num_classes: int) -> GroundTruth:
    copies = np.where(truth.labels == ANY_CLASS, num_classes, 1)
    rows = np.repeat(np.arange(len(truth.labels)), copies)
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(copies)))
    number = np.arange(len(rows)) - ends[rows]  # of a copy, which is its label
    xywh, labels = truth.boxes[rows], truth.labels[rows]
    return GroundTruth(
        image_ids=records.image_ids,
        offsets=np.concatenate((np.zeros(1, np.int64), ends[truth.ends])),
        boxes=to_xyxy(xywh),
        labels=np.where(labels == ANY_CLASS, number, labels),
        crowd=truth.is_ignore[rows],
        area=truth.area[rows],
        xywh=xywh,
    )
