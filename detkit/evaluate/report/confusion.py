"""Which classes are taken for which."""

from __future__ import annotations

import numpy as np

from detkit.evaluate.errors import CORRECT, Judged
from detkit.utils.types import Bools, Ints


def confusion(judged: Judged, used: Bools, num_classes: int) -> Ints:
    """(K + 1, K + 1) counts: rows the class of objects, columns that of detections, the last of both background.

    used: (N,) detections that count. First every correct detection takes its object (IoU of at least 0.5, same class);
    then one of another class takes the object that it overlaps most, if the IoU is at least 0.5 and none has it. What
    is left is confused with background. So a row adds up to the objects of its class, a column to the detections.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    owner = np.full(len(judged.truth_labels), -1)
    for kind in (CORRECT, "classification"):
        rows = np.flatnonzero(used & (judged.kind == kind))
        rows = rows[owner[judged.object[rows]] < 0]
        rows = rows[np.argsort(-judged.scores[rows], kind="stable")]
        objects, first = np.unique(judged.object[rows], return_index=True)
        owner[objects] = rows[first]
    taken = owner >= 0
    np.add.at(counts, (judged.truth_labels[taken], judged.labels[owner[taken]]), 1)
    counts[:-1, -1] = np.bincount(judged.truth_labels[~taken], minlength=num_classes)
    false = used.copy()
    false[owner[taken]] = False
    counts[-1, :-1] = np.bincount(judged.labels[false], minlength=num_classes)
    return counts


def most_confused(counts: Ints, most: int = 20) -> list[tuple[int, int, int]]:
    """(object's class, detection's class, count) of the most frequent confusions of two classes."""
    wrong = counts[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [(int(r), int(c), int(wrong[r, c])) for r, c in zip(rows, columns, strict=True) if wrong[r, c]]
