"""Which kinds of errors a detector makes, after TIDE (2008.08115, section 2.2), at IoU 0.5.

A detection that matches no object (in order of score, each object once, as COCO's evaluation does it) is
one of five kinds, by its best overlap with an object:

    localisation    its own class, IoU in [0.1, 0.5)
    classification  another class, IoU >= 0.5
    duplicate       its own class, IoU >= 0.5, but a better detection has the object
    background      IoU < 0.1 with every object
    both            the rest: another class, IoU in [0.1, 0.5)

and an object that no detection found, nor any of the first two kinds touched, is missed. What lies on an
ignore region counts for nothing. Letters: N detections, M objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detkit import boxes as box_ops
from detkit.evaluate.arrays import GroundTruth, Shard

CORRECT, IGNORED = "correct", "ignored"
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
FOREGROUND, BACKGROUND = 0.5, 0.1
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Judged:
    """What became of every detection and object.

    kind: (N,) str, CORRECT, IGNORED or one of `KINDS`. object: (N,) the object that it has or, for
    classification and localisation, that it should have had; -1 for none. iou: (N,) with that object.
    scores, labels: (N,). truth_labels: (M,), without ignore regions. found: (M,) bool, has a correct
    detection. touched: (M,) bool, has a detection of the first two kinds or a correct one.
    """

    kind: NDArray[np.str_]
    object: NDArray[np.int64]
    iou: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    truth_labels: NDArray[np.int64]
    found: NDArray[np.bool_]
    touched: NDArray[np.bool_]


def judge(truth: GroundTruth, found: Shard, *, most: int = 100) -> Judged:
    """Every detection's kind. most: best-scoring detections of an image and class that count."""
    place = {int(image_id): i for i, image_id in enumerate(truth.image_ids)}
    ignored = truth.crowd | (truth.area < 0)  # as in the evaluation, an object of negative area is none
    objects = ~ignored
    number = np.cumsum(objects) - 1  # of an object among those that are no ignore region
    parts: list[tuple[Any, ...]] = []
    starts = np.concatenate(([0], np.cumsum(found.counts)))
    for n, image_id in enumerate(found.image_ids.tolist()):
        rows = slice(starts[n], starts[n + 1])
        i = place[image_id]
        own = slice(truth.offsets[i], truth.offsets[i + 1])
        parts.append(
            _judge_image(
                found.boxes[rows], found.scores[rows].astype(np.float64), found.labels[rows], truth.boxes[own],
                truth.labels[own], ignored[own], number[own], most,
            )
        )  # fmt: skip
    columns = [np.concatenate(c) for c in zip(*parts, strict=True)] if parts else [np.zeros(0)] * 5
    kind, iou, scores = columns[0].astype(np.str_), columns[2], columns[3]
    matched, labels = columns[1].astype(np.int64), columns[4].astype(np.int64)
    has, near = np.zeros(objects.sum(), bool), np.zeros(objects.sum(), bool)
    has[matched[kind == CORRECT]] = True
    near[matched[np.isin(kind, (CORRECT, "classification", "localisation"))]] = True
    return Judged(kind, matched, iou, scores, labels, truth.labels[objects], has, near)


def _judge_image(
    boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], true_boxes: NDArray[Any],
    true_labels: NDArray[Any], crowd: NDArray[Any], number: NDArray[Any], most: int,
) -> tuple[Any, ...]:  # fmt: skip
    """Kinds, objects, IoUs, scores and labels of the detections of an image, by falling score."""
    order = np.argsort(-scores, kind="stable")
    order = order[_rank_in_class(labels[order]) < most]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    iou, on_crowd = _overlaps(boxes, labels, true_boxes, true_labels, crowd)
    true_labels, number = true_labels[~crowd], number[~crowd]
    kinds, matched, overlap = (
        np.full(len(boxes), "background", dtype="<U14"),
        np.full(len(boxes), -1),
        np.zeros(len(boxes)),
    )
    taken = np.zeros(len(true_labels), bool)
    for d in range(len(boxes)):
        same = true_labels == labels[d]
        free = np.where(same & ~taken, iou[d], -1.0)
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= FOREGROUND:
            taken[best] = True
            kinds[d], matched[d], overlap[d] = CORRECT, number[best], free[best]
        elif on_crowd[d]:
            kinds[d] = IGNORED
        else:
            kinds[d], best = _wrong(iou[d], same)
            if best >= 0:
                matched[d], overlap[d] = number[best], iou[d, best]
    return kinds, matched, overlap, scores, labels


def _wrong(iou: NDArray[Any], same: NDArray[np.bool_]) -> tuple[str, int]:
    """Kind of a detection that matched nothing, and the object it is about (-1: none)."""
    if not len(iou) or iou.max() < BACKGROUND:
        return "background", -1
    own, other = np.where(same, iou, -1.0), np.where(same, -1.0, iou)
    if own.max() >= FOREGROUND:
        return "duplicate", -1
    if own.max() >= BACKGROUND:
        return "localisation", int(own.argmax())
    if other.max() >= FOREGROUND:
        return "classification", int(other.argmax())
    return "both", -1


def _overlaps(
    boxes: NDArray[Any], labels: NDArray[Any], true_boxes: NDArray[Any], true_labels: NDArray[Any], crowd: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(N, M) IoU with the objects, and (N,) whether half of a box or more is on an ignore region of its class."""
    found, there = torch.as_tensor(boxes).double(), torch.as_tensor(true_boxes).double()
    iou = box_ops.pairwise_iou(found, there[torch.as_tensor(~crowd)]).numpy()
    shared = box_ops.pairwise_intersection(found, there[torch.as_tensor(crowd)])
    share = (shared / box_ops.area(found).clamp(min=1e-9)[:, None]).numpy()
    return iou, ((share >= FOREGROUND) & (labels[:, None] == true_labels[crowd])).any(axis=1)


def _rank_in_class(labels: NDArray[Any]) -> NDArray[Any]:
    """How many earlier entries have the same label."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - first
    return rank


def count_errors(judged: Judged) -> dict[str, int]:
    """Kind -> count, among as many best-scoring detections of each class as it has objects.

    That cut is as deep for a loss with high scores as for one with low ones. Missed is counted against
    the same detections.
    """
    taken = np.zeros(len(judged.kind), bool)
    for label in np.unique(judged.truth_labels):
        mine = np.flatnonzero((judged.labels == label) & (judged.kind != IGNORED))
        best = mine[np.argsort(-judged.scores[mine], kind="stable")]
        taken[best[: (judged.truth_labels == label).sum()]] = True
    kinds = judged.kind[taken]
    about = taken & np.isin(judged.kind, (CORRECT, "classification", "localisation"))
    touched = np.unique(judged.object[about])
    counts = {kind: int((kinds == kind).sum()) for kind in (CORRECT, *KINDS)}
    return counts | {"missed": len(judged.truth_labels) - len(touched)}


def cost_of_errors(judged: Judged) -> dict[str, float]:
    """Kind -> AP50 gained if errors of that kind alone were mended (TIDE's oracles, section 2.3).

    A wrong class or box is put right if its object has no detection yet, else the detection is dropped;
    of the other kinds it is dropped; missed objects leave the count. AP50 is over all detections.
    """
    base = ap50(judged.kind == CORRECT, judged.labels, judged, judged.kind != IGNORED)
    costs = {}
    for kind in KINDS[:-1]:
        wrong = judged.kind == kind
        right, labels = (judged.kind == CORRECT).copy(), judged.labels.copy()
        if kind in ("classification", "localisation"):
            mended = _first_on_each_object(judged, wrong)
            right[mended] = True
            labels[mended] = judged.truth_labels[judged.object[mended]]
            wrong = wrong & ~right
        costs[kind] = ap50(right, labels, judged, (judged.kind != IGNORED) & ~wrong) - base
    missed = judged.truth_labels[~judged.touched]
    costs["missed"] = ap50(judged.kind == CORRECT, judged.labels, judged, judged.kind != IGNORED, without=missed) - base
    return costs


def _first_on_each_object(judged: Judged, wrong: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The best-scoring of the wrong detections about each object that has no correct one."""
    rows = np.flatnonzero(wrong)
    rows = rows[~judged.found[judged.object[rows]]]
    rows = rows[np.argsort(-judged.scores[rows], kind="stable")]
    _, first = np.unique(judged.object[rows], return_index=True)
    return np.asarray(rows[first], dtype=np.int64)


def ap50(
    right: NDArray[np.bool_],
    labels: NDArray[Any],
    judged: Judged,
    used: NDArray[np.bool_],
    without: NDArray[Any] | None = None,
) -> float:
    """COCO's AP at IoU 0.5, mean over the classes that have objects; 0 without any.

    right, labels, used: (N,). without: labels of objects that are left out of the count.
    """
    found = []
    for label in np.unique(judged.truth_labels):
        total = int((judged.truth_labels == label).sum()) - int(0 if without is None else (without == label).sum())
        if total == 0:
            continue
        mine = np.flatnonzero(used & (labels == label))
        hits = right[mine[np.argsort(-judged.scores[mine], kind="stable")]]
        recall = np.cumsum(hits) / total
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, RECALLS, side="left")
        found.append(np.concatenate((envelope, [0.0]))[np.minimum(at, len(envelope))].mean())
    return float(np.mean(found)) if found else 0.0
