"""Several annotations of the same images in one place, and where they disagree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from detkit.boxes import to_xyxy
from detkit.data.datasets.auto import finders
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.found import FoundData, Place
from detkit.data.doctor.findings import Case, Findings, Kind, Mark, corners
from detkit.data.doctor.subject import Split, Subject
from detkit.registry import DATASETS
from detkit.utils.console import plural
from detkit.utils.types import Bools, Floats

DISAGREE = Kind(
    "formats-disagree", "warning", "the same images are annotated in two formats that disagree",
    "correct one of them, or delete the one that is out of date",
)  # fmt: skip
UNREAD = Kind(
    "format-unread", "note", "another format of the same images can't be read", "correct its files, or delete them"
)
AWAY = 1.5
"""Pixels by which two formats of one box may differ: they count pixels from 0 or from 1."""


def check_formats(subject: Subject, path: Path) -> Findings:
    """Compares what is read with every other format that is found at `path`."""
    findings = Findings()
    read = {type(split.dataset).__name__ for split in subject}
    for found in other_formats(path, read):
        for split in subject:
            node = found.splits.get(split.name)
            if node is None:
                continue
            try:
                other: DetectionDataset = DATASETS.build(node)
            except (ValueError, OSError) as error:
                findings.add(UNREAD, [Case(split=split.name, text=f"{found.format}: {error}")])
                continue
            findings.add(DISAGREE, disagreements(split, other, found.format))
    return findings


def other_formats(path: Path, read: set[str]) -> Iterator[FoundData]:
    """What parts other than those that were read find at a place."""
    place = Place(path)
    for part in finders():
        if part.__name__ not in read and (found := part.find(place)) is not None:
            yield found


def disagreements(split: Split, other: DetectionDataset, name: str) -> Iterator[Case]:
    """Images whose boxes differ, and images that only one of the two lists."""
    theirs = {Path(other.records.path(i)).resolve(): i for i in range(len(other))}
    for index in range(len(split.dataset)):
        match = theirs.pop(Path(split.path(index)).resolve(), None)
        if match is None:
            if count := len(split.rows(index)):
                text = f"not listed in the {name} files; it has {plural(count, 'box', 'boxes')} here"
                yield Case(split=split.name, file=split.path(index), text=text, pictures=(split.picture(index),))
            continue
        yield from compare_images(split, index, other, match, name)
    for path, index in theirs.items():
        count = len(other.records.truth.rows(index))
        text = f"only the {name} files list it, with {plural(count, 'box', 'boxes')}"
        if count:
            yield Case(split=split.name, file=str(path), text=text)


def compare_images(split: Split, index: int, other: DetectionDataset, match: int, name: str) -> Iterator[Case]:
    """A case for each image whose boxes or size differ."""
    truth = other.records.truth
    rows = truth.rows(match)
    boxes = to_xyxy(truth.boxes[rows])
    labels = [other.classes.names[k] if k >= 0 else "ignored" for k in truth.labels[rows].tolist()]
    mine = list(split.rows(index))
    names = [split.class_name(row) for row in mine]
    texts = describe_differences(split.corners[mine], names, boxes, labels, name)
    size, stated = split.dataset.records.sizes[index], other.records.sizes[match]
    if (size > 0).all() and (stated > 0).all() and (size != stated).any():
        texts.append(f"{name} states {stated[1]}x{stated[0]} pixels, not {size[1]}x{size[0]}")
    if texts:
        marks = [Mark(corners(box), f"{label} ({name})") for box, label in zip(boxes.tolist(), labels, strict=True)]
        picture = split.picture(index)
        both = replace(picture, marks=(*picture.marks, *marks))
        yield Case(split=split.name, file=split.path(index), text="; ".join(texts), pictures=(both,))


def describe_differences(mine: Floats, names: list[str], theirs: Floats, labels: list[str], name: str) -> list[str]:
    """What differs between two lists of boxes, after each box is matched with the nearest."""
    texts = [f"{name} has {plural(len(theirs), 'box', 'boxes')} instead of {len(mine)}"] * (len(mine) != len(theirs))
    if not len(mine) or not len(theirs):
        return texts
    away = np.abs(mine[:, None] - theirs[None]).max(axis=2)
    differs: Bools = np.array([[a != b for b in labels] for a in names])
    for a, b in zip(*linear_sum_assignment(np.nan_to_num(away, nan=1e9) + 0.5 * differs), strict=True):
        if differs[a, b] and away[a, b] <= max(AWAY, 20):
            texts.append(f"box {a + 1} is {labels[b]} in {name}, not {names[a]}")
        elif away[a, b] > AWAY and len(mine) == len(theirs):
            texts.append(f"box {a + 1} ({names[a]}) is up to {away[a, b]:.0f} pixels away in {name}")
    return texts
