"""The detections of several views of an image made into one list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detkit import boxes as box_ops
from detkit.predict.backend import Backend
from detkit.predict.views import Region, View, Views
from detkit.structures import Detections

EDGE = 2.0
"""Pixels from the edge of a tile within which a box counts as cut off by it."""
COVERED = 0.8
"""Part of a cut-off box that a whole box of its class must cover, to be the same object."""


def merge_views(found: Sequence[Detections], views: Sequence[View], options: Views, backend: Backend) -> Detections:
    """The detections of an image's views, in pixels of the image, as one list, best first.

    A box that the edge of a tile cuts off is dropped first where a whole box of its class covers it.
    """
    if len(views) == 1:
        return found[0]
    boxes, scores, labels = (torch.cat([getattr(d, column) for d in found]) for column in ("boxes", "scores", "labels"))
    rows = uncut_rows(boxes, labels, [len(d) for d in found], views)
    boxes, scores, labels = boxes[rows], scores[rows], labels[rows]
    if options.merge == "nms":
        keep, ranked = backend.nms(boxes, scores, labels)
        merged = Detections(boxes[keep], ranked, labels[keep])
    else:
        merged = fuse_views(boxes, scores, labels, views, options.fusion_iou)
    most = backend.max_detections
    return Detections(merged.boxes[:most], merged.scores[:most], merged.labels[:most])


def uncut_rows(boxes: Tensor, labels: Tensor, counts: Sequence[int], views: Sequence[View]) -> Tensor:
    """Rows of the boxes (N, 4) but of those that a tile cuts off while another view shows more of the object.

    counts: boxes of each view.
    """
    edges = inner_edges(views).repeat_interleave(torch.tensor(counts), dim=0).to(boxes)
    is_cut = ((boxes - edges).abs() <= EDGE).any(dim=1)
    if not is_cut.any():
        return torch.arange(len(boxes))
    cut, whole = is_cut.nonzero()[:, 0], (~is_cut).nonzero()[:, 0]
    shared = box_ops.pairwise_intersection(boxes[cut], boxes[whole])
    is_same = (labels[cut, None] == labels[whole]) & (shared >= COVERED * box_ops.area(boxes[cut])[:, None])
    gone = cut[is_same.any(dim=1)]
    keep = torch.ones(len(boxes), dtype=torch.bool)
    keep[gone] = False
    return keep.nonzero()[:, 0]


def inner_edges(views: Sequence[View]) -> Tensor:
    """(V, 4) the edges of each view that are not the image's; infinite where they are."""
    regions = torch.tensor([view.region for view in views], dtype=torch.float32)
    image = torch.cat((regions[:, :2].amin(dim=0), regions[:, 2:].amax(dim=0)))
    return regions.where(regions != image, torch.inf)


def fuse_views(boxes: Tensor, scores: Tensor, labels: Tensor, views: Sequence[View], iou: float) -> Detections:
    """Weighted boxes fusion in which the number of models is, for each object, that of the views that show it whole."""
    fused, mean, kinds, members = fuse(boxes.numpy(), scores.numpy(), labels.numpy(), iou)
    shown = np.maximum(views_with(fused, [view.region for view in views]), 1)
    final = mean * np.minimum(members, shown) / shown
    order = np.argsort(-final, kind="stable")
    return Detections(
        torch.from_numpy(fused[order]).float(), torch.from_numpy(final[order]).float(), torch.from_numpy(kinds[order])
    )


def views_with(boxes: NDArray[np.float64], regions: Sequence[Region]) -> NDArray[np.int64]:
    """(M,) how many of the regions hold each box (M, 4), but for `EDGE` pixels."""
    edges = np.array(regions, dtype=np.float64)[:, None]
    inside = (boxes[None, :, :2] >= edges[..., :2] - EDGE) & (boxes[None, :, 2:] <= edges[..., 2:] + EDGE)
    counts: NDArray[np.int64] = inside.all(axis=2).sum(axis=0)
    return counts


def weighted_boxes_fusion(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    models: int,
    iou_threshold: float = 0.55,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Weighted boxes fusion (1910.13302, section 3) of the boxes of several models, best first.

    boxes: (N, 4), of all models. scores, labels: (N,). models: how many there are (N of equation 4). Returns boxes
    (M, 4), scores (M,) by equations 1 and 4, labels (M,).
    """
    fused, mean, kinds, members = fuse(boxes, scores, labels, iou_threshold)
    final = mean * np.minimum(members, models) / models
    order = np.argsort(-final, kind="stable")
    return fused[order], final[order], kinds[order]


def fuse(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], labels: NDArray[np.int64], iou_threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Clusters of boxes (1910.13302, section 3, steps 1 to 5) -> boxes (M, 4), mean scores, labels, members, all (M,).

    A box, best first, joins the cluster of its class whose fused box it overlaps most, if by more than the threshold;
    the fused box is the mean of its members by their scores (equations 2 and 3).
    """
    count = len(boxes)
    given, weights = boxes.astype(np.float64), scores.astype(np.float64)
    sums, totals = np.zeros((count, 4)), np.zeros(count)
    fused, members, kinds = np.zeros((count, 4)), np.zeros(count, np.int64), np.zeros(count, np.int64)
    clusters = 0
    for row in np.argsort(-weights, kind="stable"):
        overlap = iou_with(given[row], fused[:clusters]) * (kinds[:clusters] == labels[row])
        best = int(overlap.argmax()) if clusters else 0
        if not clusters or overlap[best] <= iou_threshold:
            best, kinds[clusters] = clusters, labels[row]
            clusters += 1
        weight = max(weights[row], 1e-12)  # a score of 0 must not make a box of 0 / 0
        sums[best] += weight * given[row]
        totals[best] += weight
        members[best] += 1
        fused[best] = sums[best] / totals[best]
    return fused[:clusters], (totals / np.maximum(members, 1))[:clusters], kinds[:clusters], members[:clusters]


def iou_with(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) IoU of a box (4,) with others (M, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(min=0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    ious: NDArray[np.float64] = shared / np.maximum(union, 1e-12)
    return ious
