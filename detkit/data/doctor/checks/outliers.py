"""Boxes whose size, shape or place is improbable for their class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

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
    """Of N usable objects: the index of their split, their row in its `truth`, side and aspect (height over width) as
    logarithms, side in pixels, (N, 2) centre as a part of the image, and whether the box lies clear of the edges."""

    split: Ints
    rows: Ints
    side: Floats
    pixels: Floats
    aspect: Floats
    centre: Floats
    clear: Bools


def check_outliers(subject: Subject) -> Findings:
    """Outliers by class, with the medians of all splits together."""
    findings, measured = Findings(), [measure(number, split) for number, split in enumerate(subject)]
    names = np.concatenate([names_of(split, m.rows) for split, m in zip(subject, measured, strict=True)])
    everything = {field.name: np.concatenate([getattr(m, field.name) for m in measured]) for field in fields(Measures)}
    for name in subject.class_names:
        of_class = names == name
        if of_class.sum() >= LEAST:
            m = Measures(**{key: values[of_class] for key, values in everything.items()})
            for kind, score, describe in judge(m):
                findings.add(kind, (outlier(subject, m, i, score, describe) for i in np.flatnonzero(score).tolist()))
    return findings


def names_of(split: Split, rows: Ints) -> NDArray[np.object_]:
    """The classes of some boxes by name."""
    return np.array(split.dataset.classes.names, object)[split.truth.labels[rows]]


def measure(number: int, split: Split) -> Measures:
    """The measures of a split's objects in images of known size. number: of the split."""
    rows = split.objects
    boxes, sizes = split.corners[rows], split.sizes[rows]
    known = np.isfinite(sizes).all(axis=1)
    rows, boxes, sizes = rows[known], boxes[known], sizes[known]
    sides = boxes[:, 2:] - boxes[:, :2]
    pixels = np.sqrt(sides.prod(axis=1))
    clear = np.asarray(((boxes[:, :2] > 2) & (boxes[:, 2:] < sizes[:, ::-1] - 2)).all(axis=1))
    return Measures(
        np.full(len(rows), number), rows, np.log(pixels / np.sqrt(sizes.prod(axis=1))), pixels,
        np.log(sides[:, 1] / sides[:, 0]), (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes[:, ::-1], clear,
    )  # fmt: skip


def judge(m: Measures) -> Iterator[tuple[Kind, Floats, Callable[[int], str]]]:
    """For each kind, how odd every object of a class is (0: not), and its words."""
    usual = float(np.median(m.pixels))
    tiny = np.where((m.pixels <= TINY_SIDE) & (m.pixels * TINY_FACTOR < usual), usual / m.pixels, 0)
    yield TINY, tiny, lambda i: f"{m.pixels[i]:.1f} pixels large; the median of the class is {usual:.0f}"
    side, aspect = float(np.median(m.side)), np.exp(np.median(m.aspect))
    # What the edge of the image cuts off is small and thin for that reason.
    size = np.where((m.clear | (m.side > side)) & (tiny == 0), deviation(m.side, np.log(SIZE_FACTOR)), 0)
    yield SIZE, size, lambda i: f"{percent(m.side[i])} of the image's side; the median is {percent(side)}"
    shape = np.where(m.clear & (tiny == 0), deviation(m.aspect, np.log(SHAPE_FACTOR)), 0)
    yield SHAPE, shape, lambda i: f"height : width is {np.exp(m.aspect[i]):.2f}; the median is {aspect:.2f}"
    x, y = 100 * m.centre.T
    place = np.maximum(*map(alone, m.centre.T))
    yield PLACE, place, lambda i: f"centre at {x[i]:.0f} % of the width and {y[i]:.0f} % of the height"


def outlier(subject: Subject, m: Measures, index: int, score: Floats, describe: Callable[[int], str]) -> Case:
    return box_case(subject.splits[m.split[index]], int(m.rows[index]), describe(index), float(score[index]))


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
