"""Boxes whose size, shape or place is improbable for their class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from detkit.data.doctor.checks.boxes import box_case
from detkit.data.doctor.findings import Case, Findings, Kind
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.types import Bools, Floats, Ints

SIZE = Kind(
    "odd-size", "note", "boxes are far larger or smaller than others of their class",
    "look at them: a wrong class, a slip of the mouse, several objects in one box",
)  # fmt: skip
SHAPE = Kind("odd-shape", "note", "boxes are far wider or taller than others of their class", SIZE.fix)
PLACE = Kind("odd-place", "note", "boxes are where no other box of their class is", SIZE.fix)
TINY = Kind(
    "tiny-box", "warning", "boxes are a few pixels large, where others of their class are far larger",
    "draw them again, or delete them",
)  # fmt: skip
LEAST = 25
"""Boxes of a class from which one can be an outlier."""
SPREADS = 4.5
"""Distance from the median in robust standard deviations (1.4826 times the median absolute deviation)."""
SIZE_FACTOR, SHAPE_FACTOR = 3.0, 2.5
"""Factor to the median below which a size or shape is never odd, however alike the others are."""
DISTANCE = 0.25
"""Part of the image's side below which a place is never odd."""
TINY_SIDE = 4.0
"""Pixels."""
TINY_FACTOR = 6.0
"""Factor to the median of its class from which a box of a few pixels is a slip."""


@dataclass(frozen=True)
class Measures:
    """Of the usable objects of a split: side and aspect (height over width) as logarithms, centre as a part of the
    image, label, and whether the box lies clear of the edges of its image."""

    rows: Ints
    side: Floats
    pixels: Floats
    aspect: Floats
    centre: Floats
    labels: Ints
    clear: Bools


def check_outliers(subject: Subject) -> Findings:
    """Outliers by class, with the medians of all splits together."""
    findings = Findings()
    splits = list(subject)
    measured = [measure(split) for split in splits]
    for name in subject.class_names:
        masks = [of_class(split, m, name) for split, m in zip(splits, measured, strict=True)]
        if sum(int(mask.sum()) for mask in masks) < LEAST:
            continue
        for kind, score in scores(measured, masks).items():
            for split, m, mask, values in zip(splits, measured, masks, score, strict=True):
                findings.add(kind, outliers(split, m.rows[mask], values))
    return findings


def measure(split: Split) -> Measures:
    """The measures of a split's objects in images of known size."""
    rows = split.objects
    boxes, sizes = split.corners[rows], split.sizes[rows]
    known = np.isfinite(sizes).all(axis=1)
    rows, boxes, sizes = rows[known], boxes[known], sizes[known]
    sides = boxes[:, 2:] - boxes[:, :2]
    pixels = np.sqrt(sides.prod(axis=1))
    clear = np.asarray(((boxes[:, :2] > 2) & (boxes[:, 2:] < sizes[:, ::-1] - 2)).all(axis=1))
    return Measures(
        rows, np.log(pixels / np.sqrt(sizes.prod(axis=1))), pixels, np.log(sides[:, 1] / sides[:, 0]),
        (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes[:, ::-1], split.truth.labels[rows], clear,
    )  # fmt: skip


def of_class(split: Split, m: Measures, name: str) -> Bools:
    names = split.dataset.classes.names
    mask: Bools = m.labels == (names.index(name) if name in names else -2)
    return mask


Scored = tuple[Floats, list[str]]
"""How odd each box of a class is (0: not), and in words."""


def scores(measured: list[Measures], masks: list[Bools]) -> dict[Kind, list[Scored]]:
    """For each kind and split, the scores of the class's boxes."""
    parts = list(zip(measured, masks, strict=True))
    side, aspect = np.concatenate([m.side[k] for m, k in parts]), np.concatenate([m.aspect[k] for m, k in parts])
    centre, pixels = np.concatenate([m.centre[k] for m, k in parts]), np.concatenate([m.pixels[k] for m, k in parts])
    clear = np.concatenate([m.clear[k] for m, k in parts])
    usual = float(np.median(pixels))
    tiny = np.where((pixels <= TINY_SIDE) & (pixels * TINY_FACTOR < usual), usual / pixels, 0)
    # What the edge of the image cuts off is small and thin for that reason.
    size = np.where((clear | (side > np.median(side))) & (tiny == 0), deviation(side, np.log(SIZE_FACTOR)), 0)
    shape = np.where(clear & (tiny == 0), deviation(aspect, np.log(SHAPE_FACTOR)), 0)
    place = np.maximum(*(alone(centre[:, k]) for k in (0, 1)))
    texts = {
        TINY: [f"{p:.1f} pixels large; the median of the class is {usual:.0f}" for p in pixels],
        SIZE: [f"{percent(s)} of the image's side; the median is {percent(float(np.median(side)))}" for s in side],
        SHAPE: [f"height : width is {np.exp(a):.2f}; the median is {np.exp(np.median(aspect)):.2f}" for a in aspect],
        PLACE: [f"centre at {100 * x:.0f} % of the width and {100 * y:.0f} % of the height" for x, y in centre],
    }
    ends = np.cumsum([int(mask.sum()) for mask in masks])[:-1]
    result: dict[Kind, list[Scored]] = {}
    for kind, score in ((TINY, tiny), (SIZE, size), (SHAPE, shape), (PLACE, place)):
        pieces = np.split(score, ends)
        words = np.split(np.array(texts[kind], object), ends)
        result[kind] = [(piece, list(word)) for piece, word in zip(pieces, words, strict=True)]
    return result


def percent(logarithm: float) -> str:
    return f"{100 * np.exp(logarithm):.2g} %"


def deviation(values: Floats, least: float) -> Floats:
    """Distance from the median in robust standard deviations; 0 below `SPREADS`, or nearer than `least`."""
    distance = np.abs(values - np.median(values))
    spread = 1.4826 * float(np.median(distance)) + 1e-9
    odd: Floats = np.where((distance >= max(least, SPREADS * spread)), distance / max(spread, 0.05), 0)
    return odd


def alone(values: Floats) -> Floats:
    """`deviation` of places, for those that have no other one near."""
    odd = deviation(values, DISTANCE)
    ordered = np.concatenate(([-np.inf], np.sort(values), [np.inf]))
    spots = np.searchsorted(ordered, values)
    before, after = values - ordered[spots - 1], ordered[spots + 1] - values
    lonely: Floats = np.where(np.minimum(before, after) > 0.02, odd, 0)
    return lonely


def outliers(split: Split, rows: Ints, scored: Scored) -> Iterator[Case]:
    score, texts = scored
    for i in np.flatnonzero(score).tolist():
        yield box_case(split, int(rows[i]), texts[i], float(score[i]))
