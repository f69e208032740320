"""Whether scores mean what they say, and how well the boxes of correct detections fit."""

from __future__ import annotations

import numpy as np

from detkit.evaluate.errors import CORRECT, IGNORED, Judged
from detkit.utils.types import Floats, Tree

SCORE_EDGES = np.linspace(0, 1, 21)
IOU_EDGES = np.linspace(0.5, 1, 21)


def calibration(judged: Judged) -> Tree:
    """Share of detections that are right (IoU 0.5) against their score, and the expected calibration error.

    The error is the mean gap between score and share over the bins, weighted by their detections
    (1706.04599, equation 3). Bins without detections are null.
    """
    used = judged.kind != IGNORED
    scores, right = judged.scores[used], judged.kind[used] == CORRECT
    count = np.histogram(scores, SCORE_EDGES)[0]
    confidence = np.histogram(scores, SCORE_EDGES, weights=scores)[0]
    correct = np.histogram(scores, SCORE_EDGES, weights=right.astype(np.float64))[0]
    gap = float(np.abs(confidence - correct).sum() / count.sum()) if count.sum() else None
    return {
        "ece": gap,
        "edges": rounded(SCORE_EDGES),
        "confidence": [c / n if n else None for c, n in zip(confidence.tolist(), count.tolist(), strict=True)],
        "precision": [c / n if n else None for c, n in zip(correct.tolist(), count.tolist(), strict=True)],
        "count": count.tolist(),
    }


def box_quality(judged: Judged) -> Tree:
    """IoU of correct detections with their objects: histogram from 0.5 to 1 in fractions, and mean."""
    iou = judged.iou[judged.kind == CORRECT]
    counts = np.histogram(iou.clip(0.5, 1.0), IOU_EDGES)[0]
    mean = float(iou.mean()) if len(iou) else None
    return {"edges": rounded(IOU_EDGES), "fraction": rounded(counts / max(len(iou), 1)), "mean": mean}


def rounded(values: Floats) -> list[float]:
    """Numbers for a file, to six decimals."""
    return [round(float(v), 6) for v in values]
