"""Sizes and aspects of images and objects, and whether they differ between splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detkit.data.doctor.findings import Case, Findings, Kind
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.types import Floats

DIFFERENT = Kind(
    "different-splits", "warning", "objects of one split have other sizes than those of another",
    "split anew by chance, if the splits are not meant to differ",
)  # fmt: skip
ONLY_EMPTY = Kind("many-empty", "note", "many images have no objects", "nothing, if they show none; else label them")
UNLIKELY = 1e-6
"""Probability by chance (Kolmogorov-Smirnov) below which sizes differ."""
FACTOR = 1.5
LEAST = 30
LONGER_SIDES = (320, 640, 1024)
"""Pixels of the longer side of an image in a network."""
SMALL = 8
"""Pixels below which an object is hard to find."""
EMPTY = 0.3


def check_sizes(subject: Subject) -> Findings:
    findings = Findings()
    first, *others = list(subject)
    for other in others:
        findings.add(DIFFERENT, different(first, other))
    for split in subject:
        empty = len(split.dataset) - len(np.unique(split.image_of))
        if empty > EMPTY * len(split.dataset):
            text = f"{empty} of {len(split.dataset)} images"
            findings.add(ONLY_EMPTY, [Case(split=split.name, text=text)])
    return findings


def relative_sides(split: Split) -> Floats:
    """Square root of the area of every object, as a part of that of its image."""
    rows = split.objects
    sides = split.corners[rows, 2:] - split.corners[rows, :2]
    relative: Floats = np.sqrt(sides.prod(axis=1) / split.sizes[rows].prod(axis=1))
    return relative[np.isfinite(relative)]


def different(first: Split, other: Split) -> Iterator[Case]:
    """Whether the sizes of objects differ by more than chance and by a factor that matters."""
    from scipy.stats import ks_2samp

    sides = relative_sides(first), relative_sides(other)
    if min(map(len, sides)) < LEAST:
        return
    medians = [float(np.median(values)) for values in sides]
    if max(medians) >= FACTOR * min(medians) and ks_2samp(*sides).pvalue < UNLIKELY:
        text = (
            f"the median object's side is {100 * medians[1]:.2g} % of its image's, "
            f"and {100 * medians[0]:.2g} % in {first.name}"
        )
        yield Case(split=other.name, text=text)


SIZE_HEAD = (
    "class", "objects", "height : width", *(f"px at {side}" for side in LONGER_SIDES),
    f"below {SMALL} px at {LONGER_SIDES[0]}",
)  # fmt: skip


def size_rows(split: Split) -> list[list[str]]:
    """Of every class with objects: median aspect, and median side in pixels where the image's longer side is one of
    `LONGER_SIDES`, as cells below `SIZE_HEAD`."""
    rows = split.objects[np.isfinite(split.sizes[split.objects]).all(axis=1)]
    sides = split.corners[rows, 2:] - split.corners[rows, :2]
    relative = np.sqrt(sides.prod(axis=1)) / split.sizes[rows].max(axis=1)
    labels = split.truth.labels[rows]
    table = []
    for label, name in enumerate(split.dataset.classes.names):
        mask = labels == label
        if mask.any():
            aspect = float(np.median(sides[mask, 1] / sides[mask, 0]))
            medians = [f"{np.median(relative[mask]) * side:.0f}" for side in LONGER_SIDES]
            small = float((relative[mask] * LONGER_SIDES[0] < SMALL).mean())
            table.append([name, str(int(mask.sum())), f"{aspect:.2f}", *medians, f"{100 * small:.0f} %"])
    return table
