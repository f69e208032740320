"""Detections matched with ground truth once, so that AP can be computed for any resample of the images.

The matching is pycocotools' own (`COCOeval.evaluateImg`). Letters: N images, D detections of a class, T IoU
thresholds.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.evaluate.arrays import AREAS, GroundTruth, Shard
from detkit.evaluate.engines import coco_inputs
from detkit.evaluate.options import EvaluatorOptions

THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class ClassMatches:
    """One class in one area range. Detections by falling score, of equal scores by image.

    image: (D,) number of the image, by ascending image id. base: (D,) bool, counts where it is unmatched.
    twin: (D,) bool, is of the same image and has the same score as the one before it.
    rows: per threshold, ascending numbers of detections that are right, or whose counting differs from
    `base`; right: per threshold, for those rows, whether it is right; change: per threshold, what is
    added to `base` there: -1, 0 or 1. objects: (N,) objects of each image that count.
    """

    image: NDArray[np.int32]
    base: NDArray[np.bool_]
    twin: NDArray[np.bool_]
    rows: tuple[NDArray[np.int64], ...]
    right: tuple[NDArray[np.bool_], ...]
    change: tuple[NDArray[np.int8], ...]
    objects: NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Of one detector. parts: by class and area range; num_images: N."""

    parts: tuple[tuple[ClassMatches, ...], ...]
    num_images: int


def match(truth: GroundTruth, found: Shard, num_classes: int, options: EvaluatorOptions) -> Matches:
    """Images ascending by id and all there, as `CocoEvaluator.sorted` gives them."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(*coco_inputs(truth, found, num_classes), iouType="bbox")
        run.params.maxDets = [options.max_detections[-1]]
        run.params.areaRng, run.params.areaRngLbl = options.area_ranges, list(AREAS)
        run.evaluate()
    grid = np.array(run.evalImgs, dtype=object).reshape(num_classes, len(AREAS), len(found.image_ids))
    return Matches(tuple(tuple(map(_join, areas)) for areas in grid), len(found.image_ids))


def _join(images: NDArray[Any]) -> ClassMatches:
    """pycocotools' entries of one class and area, one an image (None where there is nothing)."""
    objects = np.array([0 if e is None else int((~e["gtIgnore"].astype(bool)).sum()) for e in images], np.int64)
    there = [(i, e) for i, e in enumerate(images) if e is not None and len(e["dtScores"])]
    if not there:
        none = tuple(np.zeros(0, np.int64) for _ in THRESHOLDS)
        empty = tuple(np.zeros(0, bool) for _ in THRESHOLDS)
        change = tuple(np.zeros(0, np.int8) for _ in THRESHOLDS)
        return ClassMatches(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, bool), none, empty, change, objects)
    scores = np.concatenate([e["dtScores"] for _, e in there])
    order = np.argsort(-scores, kind="mergesort")
    image = np.repeat([i for i, _ in there], [len(e["dtScores"]) for _, e in there]).astype(np.int32)[order]
    twin = np.concatenate(([False], (np.diff(scores[order]) == 0) & (np.diff(image) == 0)))
    matched = np.concatenate([e["dtMatches"] for _, e in there], axis=1).astype(bool)[:, order]
    ignored = np.concatenate([e["dtIgnore"] for _, e in there], axis=1).astype(bool)[:, order]
    # An unmatched detection is ignored for its area alone, at whichever threshold it is unmatched.
    base = ~(~matched & ignored).any(axis=0)
    right, change = matched & ~ignored, (~ignored).astype(np.int8) - base
    rows = tuple(np.flatnonzero(right[t] | (change[t] != 0)) for t in range(len(THRESHOLDS)))
    return ClassMatches(
        image,
        base,
        twin,
        rows,
        tuple(right[t][r] for t, r in enumerate(rows)),
        tuple(change[t][r] for t, r in enumerate(rows)),
        objects,
    )


def save_matches(path: Path, matches: Matches) -> None:
    """One .npz; `load_matches` reads it."""
    arrays: dict[str, NDArray[Any]] = {"num_images": np.array(matches.num_images)}
    for k, areas in enumerate(matches.parts):
        for a, part in enumerate(areas):
            lengths = np.array([len(r) for r in part.rows])
            for name in ("image", "base", "twin", "objects"):
                arrays[f"{k}/{a}/{name}"] = getattr(part, name)
            for name in ("rows", "right", "change"):
                arrays[f"{k}/{a}/{name}"] = np.concatenate(getattr(part, name))
            arrays[f"{k}/{a}/lengths"] = lengths
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_matches(path: Path) -> Matches:
    """What `save_matches` wrote."""
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    num_classes = 1 + max((int(name.partition("/")[0]) for name in content if "/" in name), default=-1)

    def part(k: int, a: int) -> ClassMatches:
        flat = {name: content[f"{k}/{a}/{name}"] for name in ("image", "base", "twin", "objects")}
        cuts = np.cumsum(content[f"{k}/{a}/lengths"])[:-1]
        split = {name: tuple(np.split(content[f"{k}/{a}/{name}"], cuts)) for name in ("rows", "right", "change")}
        return ClassMatches(**flat, rows=split["rows"], right=split["right"], change=split["change"])

    parts = tuple(tuple(part(k, a) for a in range(len(AREAS))) for k in range(num_classes))
    return Matches(parts, int(content["num_images"]))
