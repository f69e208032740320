"""Kinds of errors of a detector, after TIDE (2008.08115, section 2.2), at IoU 0.5.

A detection that matches no object (in order of score, each object once, as in COCO's evaluation) is one of five
kinds, by its best overlap with an object:

    localisation    its own class, IoU in [0.1, 0.5)
    classification  another class, IoU >= 0.5
    duplicate       its own class, IoU >= 0.5, but a better detection has the object
    background      IoU < 0.1 with every object
    both            the rest: another class, IoU in [0.1, 0.5)

and an object without a correct detection and without one of the first two kinds is missed. A detection on an ignore
region counts for nothing. Letters: N detections, M objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detkit import boxes as box_ops
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.bootstrap import precision_at_recalls
from detkit.utils.types import Bools, Floats, Ints

CORRECT, IGNORED = "correct", "ignored"
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
ABOUT_AN_OBJECT = (CORRECT, "classification", "localisation")
FOREGROUND, BACKGROUND = 0.5, 0.1

Boxes = NDArray[np.floating]


@dataclass(frozen=True)
class Judged:
    """The kind of every detection, and which objects have one.

    kind: (N,) str, CORRECT, IGNORED or one of `KINDS`. object: (N,) the matched object or, for classification and
    localisation, the one it should have matched; -1 for none. iou: (N,) with that object. scores, labels: (N,).
    truth_labels: (M,), without ignore regions. matched: (M,) bool, has a correct detection. touched: (M,) bool, has a
    detection of the first two kinds or a correct one. rows: (N,) of the detections. objects: (M,) rows of the truth.
    """

    kind: NDArray[np.str_]
    object: Ints
    iou: Floats
    scores: Floats
    labels: Ints
    truth_labels: Ints
    matched: Bools
    touched: Bools
    rows: Ints
    objects: Ints


def judge(truth: GroundTruth, detections: Shard, *, most: int = 100) -> Judged:
    """Finds the kind of every detection. most: best-scoring detections of an image and class that count."""
    position = {int(image_id): i for i, image_id in enumerate(truth.image_ids)}
    ignored = truth.crowd | (truth.area < 0)  # as in the evaluation, an object of negative area is none
    objects = ~ignored
    number = np.cumsum(objects) - 1  # of an object among those that are no ignore region
    images = []
    starts = np.concatenate(([0], np.cumsum(detections.counts)))
    for n, image_id in enumerate(detections.image_ids.tolist()):
        rows = slice(starts[n], starts[n + 1])
        i = position[image_id]
        of_image = slice(truth.offsets[i], truth.offsets[i + 1])
        images.append(
            _judge_image(
                detections.boxes[rows], detections.scores[rows].astype(np.float64), detections.labels[rows],
                truth.boxes[of_image], truth.labels[of_image], ignored[of_image], number[of_image], most,
                int(starts[n]),
            )
        )  # fmt: skip
    columns = [np.concatenate(column) for column in zip(*images, strict=True)] if images else [np.zeros(0)] * 6
    kind, iou, scores = columns[0].astype(np.str_), columns[2], columns[3]
    object_, labels, kept = (columns[n].astype(np.int64) for n in (1, 4, 5))
    matched, touched = np.zeros(objects.sum(), bool), np.zeros(objects.sum(), bool)
    matched[object_[kind == CORRECT]] = True
    touched[object_[np.isin(kind, ABOUT_AN_OBJECT)]] = True
    return Judged(
        kind, object_, iou, scores, labels, truth.labels[objects], matched, touched, kept, np.flatnonzero(objects)
    )


def _judge_image(
    boxes: Boxes, scores: Floats, labels: Ints, true_boxes: Boxes, true_labels: Ints, ignored: Bools, number: Ints,
    most: int, first: int,
) -> tuple[NDArray[np.str_], Ints, Floats, Floats, Ints, Ints]:  # fmt: skip
    """The first five fields of `Judged` for one image, and its `rows`.

    number: of each object, among those of all images. first: row of the image's first detection.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[_rank_in_class(labels[order]) < most]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    iou, on_ignored = _overlaps(boxes, labels, true_boxes, true_labels, ignored)
    true_labels, number = true_labels[~ignored], number[~ignored]
    kinds = np.full(len(boxes), "background", dtype="<U14")
    objects, overlap = np.full(len(boxes), -1), np.zeros(len(boxes))
    taken = np.zeros(len(true_labels), bool)
    for d in range(len(boxes)):
        same_class = true_labels == labels[d]
        free = np.where(same_class & ~taken, iou[d], -1.0)
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= FOREGROUND:
            taken[best] = True
            kinds[d] = CORRECT
        elif on_ignored[d]:
            kinds[d], best = IGNORED, -1
        else:
            kinds[d], best = _wrong(iou[d], same_class)
        if best >= 0:
            objects[d], overlap[d] = number[best], iou[d, best]
    return kinds, objects, overlap, scores, labels, first + order


def _wrong(iou: Floats, same_class: Bools) -> tuple[str, int]:
    """Kind of a detection without a match, and the object it is about (-1: none)."""
    if not len(iou) or iou.max() < BACKGROUND:
        return "background", -1
    same, other = np.where(same_class, iou, -1.0), np.where(same_class, -1.0, iou)
    if same.max() >= FOREGROUND:
        return "duplicate", -1
    if same.max() >= BACKGROUND:
        return "localisation", int(same.argmax())
    if other.max() >= FOREGROUND:
        return "classification", int(other.argmax())
    return "both", -1


def _overlaps(boxes: Boxes, labels: Ints, true_boxes: Boxes, true_labels: Ints, ignored: Bools) -> tuple[Floats, Bools]:
    """(N, M) IoU with the objects, and (N,) whether at least half of a box is on an ignore region of its class."""
    predicted, true = torch.as_tensor(boxes).double(), torch.as_tensor(true_boxes).double()
    iou = box_ops.pairwise_iou(predicted, true[torch.as_tensor(~ignored)]).numpy()
    shared = box_ops.pairwise_intersection(predicted, true[torch.as_tensor(ignored)])
    fraction = (shared / box_ops.area(predicted).clamp(min=1e-9)[:, None]).numpy()
    return iou, ((fraction >= FOREGROUND) & (labels[:, None] == true_labels[ignored])).any(axis=1)


def _rank_in_class(labels: Ints) -> Ints:
    """Number of earlier entries with the same label."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - first
    return rank


def count_errors(judged: Judged) -> dict[str, int]:
    """Kind -> count, among as many best-scoring detections of each class as it has objects.

    That cut is as deep for a loss with high scores as for one with low ones. Missed objects are counted against the
    same detections.
    """
    chosen = np.zeros(len(judged.kind), bool)
    for label in np.unique(judged.truth_labels):
        rows = np.flatnonzero((judged.labels == label) & (judged.kind != IGNORED))
        best = rows[np.argsort(-judged.scores[rows], kind="stable")]
        chosen[best[: (judged.truth_labels == label).sum()]] = True
    kinds = judged.kind[chosen]
    touched = np.unique(judged.object[chosen & np.isin(judged.kind, ABOUT_AN_OBJECT)])
    counts = {kind: int((kinds == kind).sum()) for kind in (CORRECT, *KINDS)}
    return counts | {"missed": len(judged.truth_labels) - len(touched)}


def cost_of_errors(judged: Judged) -> dict[str, float]:
    """Kind -> AP50 gained if errors of that kind alone were fixed (TIDE's oracles, section 2.3).

    A wrong class or box is fixed if its object has no detection yet, else the detection is dropped; detections of the
    other kinds are dropped; missed objects leave the count. AP50 is over all detections.
    """
    correct, counted = judged.kind == CORRECT, judged.kind != IGNORED
    base = ap50(correct, judged.labels, judged, counted)
    costs = {}
    for kind in KINDS[:-1]:
        wrong = judged.kind == kind
        right, labels = correct.copy(), judged.labels.copy()
        if kind in ABOUT_AN_OBJECT:
            fixed = _first_on_each_object(judged, wrong)
            right[fixed] = True
            labels[fixed] = judged.truth_labels[judged.object[fixed]]
            wrong = wrong & ~right
        costs[kind] = ap50(right, labels, judged, counted & ~wrong) - base
    costs["missed"] = ap50(correct, judged.labels, judged, counted, judged.truth_labels[~judged.touched]) - base
    return costs


def _first_on_each_object(judged: Judged, wrong: Bools) -> Ints:
    """The best-scoring of the wrong detections about each object without a correct one."""
    rows = np.flatnonzero(wrong)
    rows = rows[~judged.matched[judged.object[rows]]]
    rows = rows[np.argsort(-judged.scores[rows], kind="stable")]
    _, first = np.unique(judged.object[rows], return_index=True)
    return np.asarray(rows[first], dtype=np.int64)


def ap50(right: Bools, labels: Ints, judged: Judged, used: Bools, left_out: Ints | None = None) -> float:
    """COCO's AP at IoU 0.5, mean over the classes that have objects; 0 without any.

    right, labels, used: (N,). left_out: labels of objects that do not count.
    """
    values = []
    for label in np.unique(judged.truth_labels):
        total = int((judged.truth_labels == label).sum()) - int(0 if left_out is None else (left_out == label).sum())
        if total == 0:
            continue
        rows = np.flatnonzero(used & (labels == label))
        hits = np.flatnonzero(right[rows[np.argsort(-judged.scores[rows], kind="stable")]])
        count = np.arange(1, len(hits) + 1, dtype=np.int32)
        precision = torch.from_numpy(count / (hits + 1))
        curve = precision_at_recalls(precision[None], torch.from_numpy(count)[None], torch.tensor([total]))
        values.append(curve[0].numpy().mean())
    return float(np.mean(values)) if values else 0.0
