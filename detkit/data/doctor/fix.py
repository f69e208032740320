"""A clean copy of a data set: what can be put right without a person."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from detkit.boxes import to_xywh, to_xyxy
from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.data.datasets.records import Records, select_boxes
from detkit.data.doctor.checks.duplicates import Place, copies, describe_conflict
from detkit.data.doctor.subject import Split, Subject
from detkit.data.writers.coco import write_coco
from detkit.data.writers.names import with_file_names
from detkit.data.writers.target import Written
from detkit.utils.console import plural
from detkit.utils.types import Bools, Tree


@dataclass
class Fixes:
    """What a clean copy leaves out or changes: each kind of change with the files and boxes that it touches."""

    named: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        self.named.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        """A line for each kind of change."""
        return [f"{what}: {len(places)}" for what, places in self.named.items()] or ["nothing to put right"]

    def to_json(self) -> Tree:
        return {"changes": self.named}


UNREADABLE = "images that can't be read are left out"
UNRELIABLE = "images of another size than their annotation states are left out"
SIZE = "stated sizes are replaced by those of the images"
COPY = "copies of an image of the same split are left out"
LEAK = "copies of validation or test images are left out of training"
GONE = "splits of which no image is left are not written"
UNUSABLE = "unusable boxes are left out"
CLIPPED = "boxes are cut off at the edge of their image"
REPEATED = "repeated boxes are left out"


def clean(subject: Subject) -> tuple[dict[str, DetectionDataset], Fixes]:
    """The splits without what can't be used, is there twice or leaks, and what was done."""
    fixes = Fixes()
    left_out = find_left_out(subject, fixes)
    splits: dict[str, DetectionDataset] = {}
    for split in subject:
        kept = [i for i in range(len(split.dataset)) if (split.name, i) not in left_out]
        if kept:
            subset = Subset(split.dataset, kept, split.dataset.name)
            subset.records = clean_records(with_sizes(subset.records, split, kept, fixes), fixes)
            splits[split.name] = subset
        else:
            fixes.add(GONE, split.name)
    if not splits:
        raise ValueError(f"--fix: none of the images of {subject.place} can be used")
    return splits, fixes


def find_left_out(subject: Subject, fixes: Fixes) -> set[tuple[str, int]]:
    """(split, index) of the images that are not in the clean copy."""
    out: set[tuple[str, int]] = set()
    for split in subject:
        for index in split.gathered.scan.bad:
            facts, stated = split.facts.get(index), tuple(split.dataset.records.sizes[index].tolist())
            if facts is not None and facts.orientation == 1 and stated == facts.size[::-1]:
                continue
            fixes.add(UNREADABLE if facts is None else UNRELIABLE, split.path(index))
            out.add((split.name, index))
    order = {split.name: number for number, split in enumerate(subject)}
    places = [Place(s, i) for s in subject for i in s.facts if (s.name, i) not in out]
    for group in copies(places):
        last = max(group, key=lambda place: order[place.split.name])
        for place in group:
            kept = next(p for p in group if p.split is place.split)
            if place.split is not last.split:
                fixes.add(LEAK, f"{place.path} is {last.path} of {last.split.name}")
            elif place is not kept and not describe_conflict(kept, place):
                fixes.add(COPY, f"{place.path} is {kept.path}")
            else:
                continue
            out.add((place.split.name, place.index))
    return out


def with_sizes(records: Records, split: Split, kept: list[int], fixes: Fixes) -> Records:
    """The records with the sizes of the images where others are stated, or none; their boxes are judged again."""
    sizes, trained = records.sizes.copy(), records.truth.trained.copy()
    for row, index in enumerate(kept):
        facts = split.facts.get(index)
        if facts is None or tuple(sizes[row].tolist()) == facts.size:
            continue
        if sizes[row][0] > 0:
            fixes.add(SIZE, split.path(index))
            trained[records.truth.rows(row)] = True
        sizes[row] = facts.size
    return replace(records, sizes=sizes, truth=replace(records.truth, trained=trained))


def clean_records(records: Records, fixes: Fixes) -> Records:
    """The records whose ground truth has usable boxes only, each once and inside its image."""
    truth = records.truth
    keep, corners = truth.trained.copy(), to_xyxy(truth.boxes)
    limits = np.where(records.sizes > 0, records.sizes, np.inf)[truth.image_of][:, ::-1]
    inside = np.concatenate((np.clip(corners[:, :2], 0, limits), np.clip(corners[:, 2:], 0, limits)), axis=1)
    # What a cut leaves without area was outside.
    keep &= (inside[:, 2:] > inside[:, :2]).all(axis=1)
    for row in np.flatnonzero(~keep).tolist():
        fixes.add(UNUSABLE, name_box(records, row))
    moved = keep & (np.abs(inside - corners).max(axis=1, initial=0) > 0)
    for row in np.flatnonzero(moved).tolist():
        fixes.add(CLIPPED, name_box(records, row))
    keep &= ~repeated(records, keep, fixes)
    boxes = np.where(moved[:, None], to_xywh(inside), truth.boxes)
    area = np.where(moved, boxes[:, 2:].prod(axis=1), truth.area)
    ends = np.cumsum(keep)[truth.ends - 1] if len(keep) else truth.ends
    ends = np.where(truth.ends > 0, ends, 0)
    return replace(records, truth=select_boxes(replace(truth, boxes=boxes, area=area), keep, ends))


def repeated(records: Records, keep: Bools, fixes: Fixes) -> Bools:
    """(M,) boxes that are in their image before, with the same class."""
    again, truth = np.zeros(len(keep), bool), records.truth
    seen = set()
    for row, image in enumerate(truth.image_of.tolist()):
        key = (image, *truth.boxes[row].tolist(), int(truth.labels[row]), bool(truth.is_ignore[row]))
        if keep[row] and key in seen:
            again[row] = True
            fixes.add(REPEATED, name_box(records, row))
        seen.add(key)
    return again


def name_box(records: Records, row: int) -> str:
    image, number = records.locate(row)
    return f"{records.path(image)}, box {number}"


def write_clean(subject: Subject, folder: Path) -> tuple[Written, Fixes]:
    """Writes a clean copy as COCO JSON into a new folder, with its images."""
    splits, fixes = clean(subject)
    if not any(len(dataset.records.truth.labels) for dataset in splits.values()):
        raise ValueError(f"--fix: no usable box is left in {plural(len(splits), 'split')}")
    return write_coco(with_file_names(splits), folder), fixes
