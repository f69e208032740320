"""Matches of detections with ground truth, from which AP can be computed for any resample of the images.

The matching is pycocotools' own (`COCOeval.evaluateImg`). Letters: N images, D detections of a class, T IoU
thresholds.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detkit.evaluate.arrays import AREAS, GroundTruth, Shard
from detkit.evaluate.engines import coco_inputs
from detkit.evaluate.options import EvaluatorOptions
from detkit.utils.types import Bools, Ints

THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class ClassMatches:
    """Matches of one class in one area range. Detections are sorted by falling score, equal scores by image.

    image: (D,) index of the image, by ascending image id. base: (D,) bool, whether it counts where it is unmatched.
    twin: (D,) bool, whether it has the image and the score of the detection before it. rows: per threshold, ascending
    indices of detections that are right, or whose counting differs from `base`; right: per threshold, whether each
    of those rows is right; change: per threshold, what each of them adds to `base`: -1, 0 or 1. objects: (N,) number
    of objects of each image that count.
    """

    image: NDArray[np.int32]
    base: Bools
    twin: Bools
    rows: tuple[Ints, ...]
    right: tuple[Bools, ...]
    change: tuple[NDArray[np.int8], ...]
    objects: Ints


@dataclass(frozen=True)
class Matches:
    """Matches of one detector. parts: by class and area range; num_images: N."""

    parts: tuple[tuple[ClassMatches, ...], ...]
    num_images: int


def match(truth: GroundTruth, detections: Shard, num_classes: int, options: EvaluatorOptions) -> Matches:
    """Matches detections of all images, ascending by id, as `CocoEvaluator.sorted` returns them."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(*coco_inputs(truth, detections, num_classes), iouType="bbox")
        run.params.maxDets = [options.max_detections[-1]]
        run.params.areaRng, run.params.areaRngLbl = options.area_ranges, list(AREAS)
        run.evaluate()
    grid = np.array(run.evalImgs, dtype=object).reshape(num_classes, len(AREAS), len(detections.image_ids))
    return Matches(tuple(tuple(map(_join_images, areas)) for areas in grid), len(detections.image_ids))


def _join_images(images: NDArray[np.object_]) -> ClassMatches:
    """Joins pycocotools' entries of one class and area, one per image (None without detections and objects)."""
    objects = np.array([0 if e is None else int((~e["gtIgnore"].astype(bool)).sum()) for e in images], np.int64)
    entries = [(i, e) for i, e in enumerate(images) if e is not None]
    scores = np.concatenate([np.zeros(0), *(e["dtScores"] for _, e in entries)])
    order = np.argsort(-scores, kind="mergesort")
    image = np.repeat([i for i, _ in entries], [len(e["dtScores"]) for _, e in entries]).astype(np.int32)[order]
    twin = (np.diff(scores[order], prepend=np.nan) == 0) & (np.diff(image, prepend=-1) == 0)
    none = np.zeros((len(THRESHOLDS), 0))
    matched = np.concatenate([none, *(e["dtMatches"] for _, e in entries)], axis=1).astype(bool)[:, order]
    ignored = np.concatenate([none, *(e["dtIgnore"] for _, e in entries)], axis=1).astype(bool)[:, order]
    # An unmatched detection is ignored for its area alone, at whichever threshold it is unmatched.
    base = ~(~matched & ignored).any(axis=0)
    right, change = matched & ~ignored, (~ignored).astype(np.int8) - base
    rows = tuple(np.flatnonzero(right[t] | (change[t] != 0)) for t in range(len(THRESHOLDS)))
    right_of, change_of = (tuple(values[t][r] for t, r in enumerate(rows)) for values in (right, change))
    return ClassMatches(image, base, twin, rows, right_of, change_of, objects)


def save_matches(path: Path, matches: Matches) -> None:
    """Writes an .npz file for `load_matches`."""
    arrays: dict[str, NDArray[np.generic]] = {"num_images": np.array(matches.num_images)}
    for k, areas in enumerate(matches.parts):
        for a, part in enumerate(areas):
            for name in ("image", "base", "twin", "objects"):
                arrays[f"{k}/{a}/{name}"] = getattr(part, name)
            for name in ("rows", "right", "change"):
                arrays[f"{k}/{a}/{name}"] = np.concatenate(getattr(part, name))
            arrays[f"{k}/{a}/lengths"] = np.array([len(r) for r in part.rows])
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_matches(path: Path) -> Matches:
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
