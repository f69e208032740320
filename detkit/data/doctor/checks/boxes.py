"""Boxes that readers drop or change, and boxes that seem to be in another format than they are read in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from detkit.boxes import pairwise_iou, to_xywh, to_xyxy
from detkit.data.datasets.box_checks import box_problem, describe_overhang
from detkit.data.datasets.problems import CLIPPED, CLIPPED_A_PIXEL, DROPPED, REPEATED
from detkit.data.doctor.findings import Case, Findings, Kind, Mark, Picture, corners
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.console import plural
from detkit.utils.types import Bools, Floats, Ints

UNUSABLE = Kind(
    "unusable-box", "error", "boxes without area, inverted, not finite or outside of their image",
    "draw them again; training leaves them out (bad_boxes), and --fix does",
)  # fmt: skip
OVERHANG = Kind(
    "over-the-edge", "warning", "boxes reach beyond their image", "--fix cuts them off at the edge, as training does"
)
REPEATED_BOX = Kind("repeated-box", "warning", "a box is there twice with the same class", "--fix keeps one of them")
TWO_CLASSES = Kind(
    "two-classes", "warning", "one object has boxes of two classes", "delete the wrong one; the network learns both"
)  # fmt: skip
DOUBLE_BOX = Kind(
    "double-box", "warning", "one object has two boxes of the same class that differ a little", "delete one of them"
)  # fmt: skip
FORMAT = Kind(
    "box-format", "error", "boxes seem to be in another format than the one that they are read in",
    "convert them, or correct the setting of the format",
)  # fmt: skip
CORNER = Kind(
    "corner-only", "warning", "all boxes lie in the upper left part of their images",
    "if the images were enlarged after labelling, or the boxes are percentages, scale the boxes",
)  # fmt: skip
READ = {
    "reader-error": Kind("reader-error", "warning", "the reader left something out", "see the text of each case"),
    "reader-warning": Kind("reader-warning", "warning", "the reader changed something", "see the text of each case"),
    "reader-note": Kind("reader-note", "note", "the reader counted something", "nothing, if it is meant"),
}
SEEN_HERE = (DROPPED, CLIPPED, CLIPPED_A_PIXEL, REPEATED)
"""Kinds of the readers that are found here again, with pictures."""
LEAST = 10
"""Boxes from which a split is judged as a whole."""
FITS = 0.98
"""Fraction of the boxes that must make sense in another format."""
MISFITS = 0.05
"""Fraction of the boxes that make no sense as they are read."""
CORNER_PART = 0.6
"""Part of width and height that no box of a split reaches beyond, if the boxes are of smaller images."""
CORNER_BOXES, CORNER_IMAGES = 50, 10
SAME_OBJECT = 0.9
"""IoU from which two boxes are of one object."""


def check_boxes(subject: Subject) -> Findings:
    """Faults of single boxes, and of the boxes of a split as a whole."""
    findings = Findings()
    for split in subject:
        findings.add(FORMAT, format_doubts(split))
        findings.add(UNUSABLE, unusable(split))
        findings.add(OVERHANG, over_the_edge(split))
        findings.merge(check_pairs(split))
        findings.add(CORNER, corner_only(split))
        for kind, cases in read_problems(split):
            findings.add(kind, cases)
    return findings


def box_case(split: Split, row: int, text: str, weight: float = 0.0, others: Iterable[int] = ()) -> Case:
    """A case of one box; others: more rows of its image that are to be seen."""
    image, number = split.dataset.records.locate(row)
    name = split.class_name(row)
    picture = split.picture(image, {row: name, **{other: split.class_name(other) for other in others}})
    return Case(
        split=split.name, file=split.path(image), box=number, text=f"{name}: {text}", weight=weight, pictures=(picture,)
    )


def unusable(split: Split) -> Iterator[Case]:
    for row in np.flatnonzero(~split.truth.trained).tolist():
        height, width = np.nan_to_num(split.sizes[row], nan=-1).astype(int).tolist()
        reason = box_problem(split.corners[row], (height, width)) or as_the_reader_says(split, row)
        yield box_case(split, row, reason)


def as_the_reader_says(split: Split, row: int) -> str:
    """Why the reader drops a box that is whole by now, as a VOC box gets a pixel by including its last one."""
    image, number = split.dataset.records.locate(row)
    stem = split.dataset.records.file_name(image).rpartition(".")[0]
    for kind, occurrences in split.dataset.problems:
        for example in occurrences.examples if kind is DROPPED else ():
            if stem in example and f", box {number} [" in example:
                return example.partition("]: ")[2]
    return "the reader can't use it"


def over_the_edge(split: Split) -> Iterator[Case]:
    """Usable boxes that reach over the edge by more than a pixel, in images whose size is certain."""
    height, width = split.sizes[:, 0], split.sizes[:, 1]
    x1, y1, x2, y2 = split.corners.T
    with np.errstate(invalid="ignore"):
        beyond = np.max([-x1, -y1, x2 - width, y2 - height], axis=0)
        rows = np.flatnonzero(split.truth.trained & (beyond > 1.0) & split.is_certain)
    for row in rows.tolist():
        size = int(height[row]), int(width[row])
        yield box_case(split, row, describe_overhang(split.corners[row], size), float(beyond[row] / max(size)))


def check_pairs(split: Split) -> Findings:
    """Pairs of boxes of an image that cover the same object."""
    findings, is_object = Findings(), split.truth.trained & ~split.truth.is_ignore
    for index in range(len(split.dataset)):
        rows = [row for row in split.rows(index) if is_object[row]]
        boxes = torch.from_numpy(split.corners[rows])
        iou = pairwise_iou(boxes, boxes).triu(1)
        for a, b in (iou >= SAME_OBJECT).nonzero().tolist():
            findings.add(*judge_pair(split, rows[a], rows[b], float(iou[a, b])))
    return findings


def judge_pair(split: Split, a: int, b: int, iou: float) -> tuple[Kind, list[Case]]:
    numbers = split.dataset.records.locate(a)[1]
    if split.truth.labels[a] != split.truth.labels[b]:
        text = f"box {numbers} is {split.class_name(a)} at the same place (IoU {iou:.2f})"
        return TWO_CLASSES, [box_case(split, b, text, iou, [a])]
    if np.array_equal(split.truth.boxes[a], split.truth.boxes[b]):
        return REPEATED_BOX, [box_case(split, b, f"is box {numbers} again", others=[a])]
    return DOUBLE_BOX, [box_case(split, b, f"is nearly box {numbers} (IoU {iou:.2f})", iou, [a])]


Reading = Callable[[Floats], Floats]


def from_centres(b: Floats) -> Floats:
    half = (b[:, 2:] - b[:, :2]) / 2
    return np.concatenate((b[:, :2] - half, b[:, :2] + half), axis=1)


def centres_as_corners(b: Floats) -> Floats:
    """Boxes whose centre and size, as they were read, are two corners."""
    return np.concatenate(((b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]), axis=1)


def centres_as_corner_and_size(b: Floats) -> Floats:
    """Boxes whose centre and size, as they were read, are the upper left corner and size."""
    return b + np.tile((b[:, 2:] - b[:, :2]) / 2, 2)


def from_yx(b: Floats) -> Floats:
    return b[:, [1, 0, 3, 2]]


READINGS: dict[str, Reading] = {
    "two corners (xmin, ymin, xmax, ymax), read as corner and size": to_xywh,
    "corner and size (x, y, width, height), read as two corners": to_xyxy,
    "centre and size (cx, cy, width, height), read as corner and size": from_centres,
    "(y, x) instead of (x, y)": from_yx,
    "two corners (x1, y1, x2, y2), read as centre and size": centres_as_corners,
    "corner and size (x, y, width, height), read as centre and size": centres_as_corner_and_size,
}
"""Another format -> the corners in it of boxes (N, 4) that were read as corners."""


def format_doubts(split: Split) -> Iterator[Case]:
    """Whether the boxes make more sense in another format."""
    known = np.flatnonzero(np.isfinite(split.sizes).all(axis=1) & np.isfinite(split.corners).all(axis=1))
    boxes, sizes = split.corners[known], split.sizes[known]
    sensible = makes_sense(boxes, sizes)
    misfits = int((~sensible).sum())
    if len(known) < LEAST or misfits < MISFITS * len(known) or misfits < 3:
        return
    for name, reading in READINGS.items():
        other = makes_sense(reading(boxes), sizes)
        if other.mean() >= FITS and other[~sensible].mean() >= FITS:
            counted = f"{misfits} of {plural(len(known), 'box', 'boxes')} make no sense as they are read"
            pictures = tuple(reread(split, known[~sensible], reading))
            yield Case(split=split.name, text=f"{counted}; {int(other.sum())} do as {name}", pictures=pictures)
            return


def makes_sense(boxes: Floats, sizes: Floats) -> Bools:
    """(N,) whether corners are in order and inside an image of (N, 2) height and width, to a pixel."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.asarray(((low >= -1) & (high <= sizes[:, ::-1] + 1) & (high > low)).all(axis=1))


def reread(split: Split, rows: Ints, reading: Reading) -> Iterator[Picture]:
    """An image with boxes that make no sense: as they are read, and in the other format."""
    image = int(split.image_of[rows[0]])
    mine = list(split.rows(image))
    yield split.picture(image, {row: split.class_name(row) for row in mine}, "as they are read")
    new = reading(split.corners[mine])
    marks = [Mark(corners(box), split.class_name(row), False) for row, box in zip(mine, new.tolist(), strict=True)]
    yield Picture(split.path(image), tuple(marks), "in the other format")


def corner_only(split: Split) -> Iterator[Case]:
    """Whether no box reaches the right and the lower part of its image."""
    rows = split.objects
    if len(rows) < CORNER_BOXES or len(set(split.image_of[rows].tolist())) < CORNER_IMAGES:
        return
    reach = np.nanmax(split.corners[rows][:, 2:] / split.sizes[rows][:, ::-1], axis=0)
    if (reach < CORNER_PART).all():
        text = f"no box reaches beyond {100 * reach[0]:.0f} % of the width and {100 * reach[1]:.0f} % of the height"
        yield Case(split=split.name, text=text, pictures=(split.picture(int(split.image_of[rows[0]])),))


def read_problems(split: Split) -> Iterator[tuple[Kind, list[Case]]]:
    """What the reader counted and is not found here again."""
    for kind, occurrences in split.dataset.problems:
        if kind not in SEEN_HERE:
            name = "reader-note" if kind.quiet else "reader-error" if kind.lost else "reader-warning"
            examples = "; ".join(occurrences.examples[:3])
            more = " and others" if occurrences.count > 3 else ""
            yield READ[name], [Case(split=split.name, text=f"{kind.counted(occurrences.count)}: {examples}{more}")]
