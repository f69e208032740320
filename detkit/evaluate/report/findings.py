"""What a report says, as plain data: every figure of report.html and report.md is here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detkit.data.datasets.base import DetectionDataset
from detkit.evaluate.arrays import AREAS, GroundTruth, Shard
from detkit.evaluate.bootstrap import RECALLS, average_precision, resample
from detkit.evaluate.calibration import calibration
from detkit.evaluate.coco import CocoResult, ground_truth_from
from detkit.evaluate.errors import CORRECT, IGNORED, Judged, cost_of_errors, count_errors, judge
from detkit.evaluate.matches import THRESHOLDS, Matches, match
from detkit.evaluate.options import EvaluatorOptions
from detkit.evaluate.report.confusion import confusion, most_confused
from detkit.evaluate.report.curves import GRID, ClassCurves, at_thresholds, curves_of, mean_curves, thresholds_of
from detkit.evaluate.report.pictures import Gallery
from detkit.evaluate.report.slices import Column, interval, slice_figures
from detkit.evaluate.report.table import metric_names
from detkit.utils.types import Ints, Tree

RESAMPLES = 1000
MOST_DRAWN = 20_000_000
"""Images drawn in all resamples together; very large data sets get fewer of them."""
BARS = 30
"""Most bars of a histogram."""


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation. detections: of all images, ascending by id, as `CocoEvaluator.sorted` gives them."""

    result: CocoResult
    dataset: DetectionDataset
    detections: Shard
    options: EvaluatorOptions


def find(evaluated: Evaluated, title: str, columns: dict[str, Column]) -> Tree:
    """The content of a report. columns: metadata by whose values the images are cut into slices."""
    dataset, detections = evaluated.dataset, evaluated.detections
    truth, names = ground_truth_from(dataset), dataset.classes.names
    judged = judge(truth, detections, most=evaluated.options.max_detections[-1])
    matches = match(truth, detections, len(names), evaluated.options)
    curves = curves_of(judged, len(names))
    thresholds = thresholds_of(curves)
    used = at_thresholds(judged, thresholds)
    gallery = Gallery(dataset, truth, detections, judged, used)
    counts = confusion(judged, used, len(names))
    position = np.argsort(np.argsort(truth.image_ids))
    objects = np.bincount(gallery.image_of_object, minlength=len(truth.image_ids))
    return {
        "title": title,
        "data": data_of(evaluated, truth),
        "rows": rows_of(evaluated, curves, resampled(matches, names)),
        "ious": [round(float(t), 2) for t in THRESHOLDS],
        "curves": curves_to_plain(evaluated, curves),
        "confusion": {
            "counts": [[int(r), int(c), int(counts[r, c])] for r, c in np.argwhere(counts)],
            "most": [[names[r], names[c], n] for r, c, n in most_confused(counts)],
        },
        "errors": {"counts": count_errors(judged), "dap": cost_of_errors(judged)},
        "calibration": {**calibration(judged), "mean_gap": mean_gap(judged)},
        "per_image": histogram(objects, np.bincount(gallery.image_of[used], minlength=len(objects))),
        "slices": {
            key: slice_figures(column, matches, names, position, objects) for key, column in columns.items()
        },
        "worst": gallery.worst(),
        "confident": gallery.confident(),
        "unread": gallery.unread,
    }  # fmt: skip


def data_of(evaluated: Evaluated, truth: GroundTruth) -> Tree:
    result, options = evaluated.result, evaluated.options
    return {
        "name": evaluated.dataset.name,
        "classes": list(evaluated.dataset.classes.names),
        "images": result.num_images,
        "objects": sum(counts["all"] for counts in result.num_objects.values()),
        "ignored": int((truth.crowd | (truth.area < 0)).sum()),
        "detections": result.num_detections,
        "metrics": metric_names(result),
        "areas": list(options.area_limits),
        "engine": options.engine,
        "most": options.max_detections[-1],
        "most_per_image": options.max_per_image,
    }


def resampled(matches: Matches, names: tuple[str, ...]) -> dict[str, tuple[float | None, float | None]]:
    """Metric -> its 95 % interval, by a bootstrap over the images (Efron, 1979; percentiles)."""
    images = matches.num_images
    draws = max(200, min(RESAMPLES, MOST_DRAWN // max(images, 1)))
    figures = average_precision(matches, resample(images, draws), names) if images else {}
    return {name: interval(values, images) for name, values in figures.items()}


def rows_of(
    evaluated: Evaluated, curves: list[ClassCurves], intervals: dict[str, tuple[float | None, float | None]]
) -> list[Tree]:
    """The rows of the tables: all classes, then each class. Figures are those of the evaluator."""
    result = evaluated.result
    assert result.precisions is not None
    by_iou = result.precisions.ap  # (K, areas, T)
    present = by_iou[~np.isnan(by_iou[:, 0, 0])]
    mean = present[:, 0].mean(axis=0) if len(present) else np.full(len(THRESHOLDS), np.nan)
    entries = [("all classes", "ap", result.metrics, mean, mean_curves(curves))]
    entries += [
        (name, f"per_class:{name}", figures, by_iou[k, 0], curves[k])
        for k, (name, figures) in enumerate(result.per_class.items())
    ]
    rows = []
    for name, key, figures, ious, curve in entries:
        low, high = intervals.get(key, (None, None))
        counts = result.num_objects if key == "ap" else {name: result.num_objects[name]}
        sizes = {area: sum(of_class[area] for of_class in counts.values()) for area in AREAS}
        rows.append(
            {
                "name": name,
                "objects": sizes,
                "metrics": {k: rounded(v) for k, v in figures.items()},
                "low": rounded(low),
                "high": rounded(high),
                "by_iou": plain(ious),
                "best": None
                if curve.best is None
                else {k: rounded(getattr(curve.best, k)) for k in ("threshold", "f1", "precision", "recall")},
            }
        )
    return rows


def curves_to_plain(evaluated: Evaluated, curves: list[ClassCurves]) -> Tree:
    """Curves of the evaluator over recall, and curves over the threshold."""
    assert evaluated.result.precisions is not None
    _, by_iou, per_class = evaluated.result.precisions
    everything = [mean_curves(curves), *curves]
    return {
        "recalls": plain(RECALLS),
        "thresholds": plain(GRID),
        "by_iou": {f"{THRESHOLDS[t]:.2f}": plain(by_iou[t]) for t in (0, 5, 8)},
        "precision_over_recall": [plain(by_iou[0]), *(plain(curve) for curve in per_class)],
        **{key: [plain(getattr(curve, key)) for curve in everything] for key in ("precision", "recall", "f1")},
    }


def mean_gap(judged: Judged) -> float | None:
    """Mean score of the detections minus the share of them that is right; above zero: too sure of itself."""
    counted = judged.kind != IGNORED
    if not counted.any():
        return None
    return float(judged.scores[counted].mean() - (judged.kind[counted] == CORRECT).mean())


def histogram(objects: Ints, found: Ints) -> Tree:
    """Images by how many objects they have, and by how many detections."""
    most = int(max(objects.max(initial=0), found.max(initial=0)))
    width = -(-(most + 1) // BARS)
    edges = np.arange(0, most + width + 1, width)
    first = [int(edge) for edge in edges[:-1]]
    return {
        "bins": [str(a) if width == 1 else f"{a}-{a + width - 1}" for a in first],
        "objects": np.histogram(objects, edges)[0].tolist(),
        "detections": np.histogram(found, edges)[0].tolist(),
    }


def plain(values: NDArray[np.floating]) -> list[float | None]:
    """Numbers for JSON, to five decimals, None in place of NaN."""
    return [rounded(float(v)) for v in values]


def rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)
