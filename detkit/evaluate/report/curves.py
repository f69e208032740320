"""Precision, recall and F1 of a class over its score threshold, at IoU 0.5.

F1 is 2 TP / (TP + FP + objects), the harmonic mean of precision and recall. A threshold keeps the scores that reach it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detkit.evaluate.errors import CORRECT, IGNORED, Judged
from detkit.utils.types import Bools, Floats

GRID = np.linspace(0, 1, 101)
"""Thresholds of the curves."""
NO_THRESHOLD = 0.5
"""Where no detection of any class is right."""


@dataclass(frozen=True)
class Best:
    """The threshold of the highest F1, and the figures at it; the highest threshold, where several are as good."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class ClassCurves:
    """One class. precision (NaN where nothing is kept), recall, f1: (101,) at `GRID`.

    best: None if nothing is right.
    """

    objects: int
    precision: Floats
    recall: Floats
    f1: Floats
    best: Best | None


def curves_of(judged: Judged, num_classes: int) -> list[ClassCurves]:
    """The curves of every class; those of a class without objects are NaN."""
    return [_curves(judged, k) for k in range(num_classes)]


def _curves(judged: Judged, k: int) -> ClassCurves:
    rows = np.flatnonzero((judged.labels == k) & (judged.kind != IGNORED))
    rows = rows[np.argsort(-judged.scores[rows], kind="stable")]
    scores, right = judged.scores[rows], np.cumsum(judged.kind[rows] == CORRECT)
    objects = int((judged.truth_labels == k).sum())
    if not objects:
        nothing = np.full(len(GRID), np.nan)
        return ClassCurves(0, nothing, nothing, nothing, None)
    kept = np.searchsorted(-scores, -GRID, side="right")
    hits = np.concatenate(([0], right))[kept]
    precision = np.where(kept > 0, hits / np.maximum(kept, 1), np.nan)
    return ClassCurves(objects, precision, hits / objects, 2 * hits / (kept + objects), _best(scores, right, objects))


def _best(scores: Floats, right: Floats, objects: int) -> Best | None:
    # Equal scores are kept together.
    cuts = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, np.int64)
    f1 = 2 * right[cuts] / (cuts + 1 + objects)
    if not len(cuts) or f1.max() == 0:
        return None
    at = int(cuts[f1.argmax()])
    return Best(float(scores[at]), float(f1.max()), float(right[at] / (at + 1)), float(right[at] / objects))


def mean_curves(curves: list[ClassCurves]) -> ClassCurves:
    """The mean over the classes that have objects; its `best` is the best threshold on the grid for all of them."""
    with_objects = [c for c in curves if c.objects]
    if not with_objects:
        nothing = np.full(len(GRID), np.nan)
        return ClassCurves(0, nothing, nothing, nothing, None)
    precision = nan_mean(np.stack([c.precision for c in with_objects]))
    recall, f1 = (np.mean([getattr(c, name) for c in with_objects], axis=0) for name in ("recall", "f1"))
    at = int(len(GRID) - 1 - f1[::-1].argmax())
    best = Best(float(GRID[at]), float(f1[at]), float(precision[at]), float(recall[at])) if f1[at] > 0 else None
    return ClassCurves(sum(c.objects for c in with_objects), precision, recall, f1, best)


def nan_mean(values: Floats) -> Floats:
    """Mean over the rows without NaN; NaN in a column of nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def thresholds_of(curves: list[ClassCurves]) -> Floats:
    """(K,) the best threshold of every class; of one that has none, the best for all."""
    common = mean_curves(curves).best
    instead = common.threshold if common else NO_THRESHOLD
    return np.array([c.best.threshold if c.best else instead for c in curves])


def at_thresholds(judged: Judged, thresholds: Floats) -> Bools:
    """(N,) which detections count at the thresholds of their classes."""
    kept: Bools = (judged.kind != IGNORED) & (judged.scores >= thresholds[judged.labels])
    return kept
