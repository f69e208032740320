"""AP on resampled images: every resample gives each image a weight, how often it was drawn.

An image that was drawn twice counts as two such images next to each other, and the figures are those that the
evaluator gives for them, equal scores or not. A class without an object in the resample has no AP and is left out of
the mean, as in the evaluator. Letters: R resamples, N images, D detections of a class.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detkit.evaluate.arrays import AREAS
from detkit.evaluate.matches import THRESHOLDS, ClassMatches, Matches

RECALLS = np.linspace(0.0, 1.0, 101)
CHUNK = 1 << 24
"""Elements of the largest temporary array."""


def resample(num_images: int, resamples: int, seed: int = 0) -> NDArray[np.int32]:
    """(R, N) weights of R resamples of N images with replacement."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, num_images, (resamples, num_images))
    weights = np.zeros((resamples, num_images), np.int32)
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1)
    return weights


def average_precision(
    matches: Matches, weights: NDArray[np.int32], class_names: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    """Metric name -> (R,) values, NaN where a resample has no object to measure against.

    ap, ap50, ap75, ap_small, ap_medium, ap_large as in `CocoResult.metrics`, and per_class:<name>.
    """
    if weights.shape[1] != matches.num_images:
        raise ValueError(f"weights for {weights.shape[1]} images, but matches for {matches.num_images}")
    drawn = torch.from_numpy(np.ascontiguousarray(weights))
    # (areas, classes, T, R); NaN: no object of the class in the area.
    values = np.stack([np.stack([_class_ap(part[a], drawn) for part in matches.parts]) for a in range(len(AREAS))])
    metrics = {"ap": _mean(values[0]), "ap50": _mean(values[0][:, :1]), "ap75": _mean(values[0][:, 5:6])}
    metrics |= {f"ap_{area}": _mean(values[a]) for a, area in enumerate(AREAS) if a}
    return metrics | {f"per_class:{name}": values[0][k].mean(axis=0) for k, name in enumerate(class_names)}


def images_behind(matches: Matches, class_names: tuple[str, ...]) -> dict[str, int]:
    """Metric name -> number of images it rests on: all, or those with an object of its size or class."""
    has_object = np.stack([np.stack([part[a].objects > 0 for part in matches.parts]) for a in range(len(AREAS))])
    images = dict.fromkeys(("ap", "ap50", "ap75"), matches.num_images)
    images |= {f"ap_{area}": int(has_object[a].any(axis=0).sum()) for a, area in enumerate(AREAS) if a}
    return images | {f"per_class:{name}": int(has_object[0, k].sum()) for k, name in enumerate(class_names)}


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(classes, T, R) -> (R,) mean without NaN; NaN where all values are."""
    flat = values.transpose(2, 0, 1).reshape(values.shape[2], -1)
    known = ~np.isnan(flat)
    count = known.sum(axis=1)
    total = np.where(known, flat, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _class_ap(part: ClassMatches, weights: Tensor) -> NDArray[np.float64]:
    """(T, R) AP of one class in one area range."""
    resamples = len(weights)
    ap = np.full((len(THRESHOLDS), resamples), np.nan)
    has_object = torch.from_numpy(np.flatnonzero(part.objects))
    objects = torch.from_numpy(part.objects)[has_object].to(torch.int32)
    part, copies = _repeat_ties(part, weights)
    image, base = torch.from_numpy(part.image).long(), torch.from_numpy(part.base)
    per = max(1, CHUNK // max(len(image), 1))
    for start in range(0, resamples, per):
        w = weights[start : start + per]
        total = (w[:, has_object] * objects).sum(dim=1)  # (r,)
        if copies.shape[1]:
            w = torch.cat((w, (w[:, copies[0]] > copies[1]).to(w.dtype)), dim=1)
        # Detections that count up to and with each one, where none is matched: the same at every threshold.
        counted = (w[:, image] * base).cumsum(dim=1, dtype=torch.int32) if any(len(r) for r in part.rows) else None
        for t in range(len(THRESHOLDS)):
            at_threshold = _threshold_ap(part, t, w, image, counted, total)
            ap[t, start : start + per] = torch.where(total > 0, at_threshold, torch.nan).numpy()
    return ap


def _repeat_ties(part: ClassMatches, weights: Tensor) -> tuple[ClassMatches, Tensor]:
    """Repeats detections of one image with the same score once for every time the image was drawn.

    In an image drawn twice, with a right and a wrong detection of the same score, the evaluator sees right, wrong,
    right, wrong; a weight of two on each would be right, right, wrong, wrong. Returns the part, in which such
    detections belong to images from N on, and (2, C): the image of each of those, and its copy c, which counts if the
    image was drawn more than c times.
    """
    starts = np.flatnonzero(~part.twin)
    sizes = np.diff(starts, append=len(part.twin))
    right = np.zeros(len(part.twin), bool)
    for rows, correct in zip(part.rows, part.right, strict=True):
        right[rows[correct]] = True
    chosen = (sizes > 1) & (np.add.reduceat(right, starts) > 0 if len(starts) else False)
    if not chosen.any() or not len(weights):
        return part, torch.zeros((2, 0), dtype=torch.int64)
    drawn = weights.amax(dim=0).numpy()[part.image[starts]]
    times = np.where(chosen, np.maximum(drawn, 1), 1)
    group = np.repeat(np.arange(len(starts)), sizes * times)
    within = np.arange(len(group)) - np.repeat(np.cumsum(sizes * times) - sizes * times, sizes * times)
    source = starts[group] + within % sizes[group]
    pairs = np.stack((part.image[source], within // sizes[group])).astype(np.int64)
    copies, column = np.unique(pairs[:, chosen[group]], axis=1, return_inverse=True)
    image = pairs[0].copy()
    image[chosen[group]] = weights.shape[1] + column.reshape(-1)
    kept = []
    for rows in part.rows:
        index = np.full(len(part.twin), -1)
        index[rows] = np.arange(len(rows))
        kept.append(index[source])
    rows_of = tuple(np.flatnonzero(k >= 0) for k in kept)
    right_of = tuple(part.right[t][k[k >= 0]] for t, k in enumerate(kept))
    change_of = tuple(part.change[t][k[k >= 0]] for t, k in enumerate(kept))
    base, twin = part.base[source], part.twin[source]
    return ClassMatches(image, base, twin, rows_of, right_of, change_of, part.objects), torch.from_numpy(copies)


def _threshold_ap(
    part: ClassMatches, t: int, w: Tensor, image: Tensor, counted: Tensor | None, total: Tensor
) -> Tensor:
    """(r,) AP at one threshold."""
    rows, right = torch.from_numpy(part.rows[t]), torch.from_numpy(part.right[t])
    if counted is None or not bool(right.any()):
        return torch.zeros(len(w), dtype=torch.float64)
    times = w[:, image[rows]]
    hits = right.nonzero()[:, 0]
    tp = times[:, hits].cumsum(dim=1, dtype=torch.int32)
    change = torch.from_numpy(part.change[t]).to(torch.int32)
    detections = counted[:, rows]
    if bool(change.any()):
        detections = detections + (times * change).cumsum(dim=1, dtype=torch.int32)
    precision = tp / (detections[:, hits].double() + np.spacing(1))
    return precision_at_recalls(precision, tp, total).mean(dim=1)


def precision_at_recalls(precision: Tensor, tp: Tensor, total: Tensor) -> Tensor:
    """(r, 101) interpolated precision at COCO's recalls, 0 beyond the highest recall; AP is its mean.

    precision: (r, h) at each right detection: nowhere else can it peak. tp: (r, h) int32, right detections up to
    there. total: (r,) objects.
    """
    envelope = precision.flip(1).cummax(dim=1).values.flip(1) if precision.shape[1] else precision
    position = torch.searchsorted(tp, _least_hits(total))
    return torch.cat((envelope, envelope.new_zeros(len(tp), 1)), dim=1).gather(1, position)


def _least_hits(total: Tensor) -> Tensor:
    """(r,) objects -> (r, 101) fewest right detections that reach each of the 101 recalls."""
    count = total.numpy().astype(np.float64)[:, None].clip(min=1)
    least = np.ceil(RECALLS * count)
    least = np.where((least - 1) / count >= RECALLS, least - 1, least)
    least = np.where(least / count < RECALLS, least + 1, least)
    return torch.from_numpy(least.astype(np.int32))
