"""Average precision of PASCAL VOC, as its development kits compute it (VOCevaldet.m of VOC 2007 and VOC 2012).

A detection belongs to the object of its class and image that it overlaps most. At an IoU of at least 0.5 it is right if
no better-scoring one has that object, and wrong otherwise, whatever else it overlaps: unlike COCO's, the rule knows no
second choice. One on a difficult object (or another ignore region) counts neither way. The kit adds 1 to the sides of
boxes in whole pixels; the boxes here are already the edges of those pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from detkit import boxes as box_ops
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.utils.types import Bools, Floats, Ints

OVERLAP = 0.5


def voc_ap(truth: GroundTruth, detections: Shard, num_classes: int) -> dict[str, list[float | None]]:
    """`ap_voc07` and `ap_voc12` -> AP of every class, None without objects. Detections of images ascending by id."""
    ignored = truth.crowd | (truth.area < 0)
    best, overlap = _best_objects(truth, detections)
    hit = overlap >= OVERLAP
    values: dict[str, list[float | None]] = {"ap_voc07": [], "ap_voc12": []}
    for k in range(num_classes):
        rows = np.flatnonzero(detections.labels == k)
        rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
        rows = rows[~(hit[rows] & ignored[best[rows]])]
        right = np.zeros(len(rows), bool)
        hits = np.flatnonzero(hit[rows])
        right[hits[np.unique(best[rows[hits]], return_index=True)[1]]] = True
        objects = int(((truth.labels == k) & ~ignored).sum())
        values["ap_voc07"].append(eleven_points(right, objects) if objects else None)
        values["ap_voc12"].append(area_under_curve(right, objects) if objects else None)
    return values


def _best_objects(truth: GroundTruth, detections: Shard) -> tuple[Ints, Floats]:
    """(N,) the object of its class that each detection overlaps most, 0 for none, and (N,) the IoU with it."""
    best, overlap = np.zeros(len(detections.labels), np.int64), np.zeros(len(detections.labels))
    position = {int(image_id): i for i, image_id in enumerate(truth.image_ids)}
    start = 0
    for image_id, count in zip(detections.image_ids.tolist(), detections.counts.tolist(), strict=True):
        rows, start = slice(start, start + count), start + count
        first, last = truth.offsets[position[image_id] : position[image_id] + 2].tolist()
        if count == 0 or first == last:
            continue
        boxes, objects = (torch.as_tensor(x).double() for x in (detections.boxes[rows], truth.boxes[first:last]))
        iou = box_ops.pairwise_iou(boxes, objects).numpy()
        iou[detections.labels[rows][:, None] != truth.labels[first:last]] = 0.0
        best[rows], overlap[rows] = first + iou.argmax(axis=1), iou.max(axis=1)
    return best, overlap


def eleven_points(right: Bools, objects: int) -> float:
    """VOC 2007: mean of the highest precision at a recall of at least 0, 0.1, ..., 1.

    right: of each detection, by falling score. Source: The PASCAL Visual Object Classes (VOC) Challenge, Everingham
    and others, 2010.
    """
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    # In whole numbers: 3 of 10 objects are a recall of 0.3.
    reached = 10 * hits >= np.arange(11)[:, None] * objects
    return float(np.where(reached, precision, 0.0).max(axis=1, initial=0.0).mean())


def area_under_curve(right: Bools, objects: int) -> float:
    """VOC 2010 to 2012: area under the curve in which a precision is the highest at that recall or a higher one.

    right: of each detection, by falling score. Source: the development kit of VOC 2012, section 3.4.1.
    """
    at = np.flatnonzero(right)
    precision = np.arange(1, len(at) + 1) / (at + 1)  # highest where a detection is right
    return float(np.maximum.accumulate(precision[::-1]).sum() / objects)
