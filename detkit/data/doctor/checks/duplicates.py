"""Images that are there twice, byte by byte or nearly, within a split and across splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment

from detkit.boxes import pairwise_iou
from detkit.data.doctor.findings import Case, Findings, Kind
from detkit.data.doctor.store import ImageFacts
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.console import plural
from detkit.utils.types import Floats32, Ints

LEAK = Kind(
    "leak", "warning", "images of one split are copies of images of another, so its AP is too high",
    "leave the copies out of training; --fix writes such a data set",
)  # fmt: skip
NEAR_LEAK = Kind(
    "near-leak", "warning", "images of one split are almost images of another, as frames of one video are",
    "split by scene, video or place instead of by image",
)  # fmt: skip
COPIES = Kind(
    "copies", "warning", "images are there several times in a split, with the same objects", "--fix keeps the first one"
)  # fmt: skip
CONFLICT = Kind(
    "conflicting-copies", "warning",
    "copies of an image have different objects: those of one are background in another",
    "put all boxes under one image",
)  # fmt: skip
NEAR_COPIES = Kind(
    "near-copies", "note", "images of a split are almost the same",
    "nothing, if they are frames of a video; else leave one of them out",
)  # fmt: skip
NO_HASH = Kind(
    "no-hash", "note", "near-duplicates were not looked for, because the package ImageHash is missing",
    "pip install 'detkit[doctor]'",
)  # fmt: skip
BITS = 6
"""Bits of 64 in which the perceptual hashes of near-duplicates may differ."""
GREY_DIFFERENCE = 6.0
"""Mean difference of the small grey copies of near-duplicates, of 255, after their mean brightness is made equal."""
COLOUR_DIFFERENCE = 12.0
"""Mean difference of the small colour copies."""
FLAT = 4.0
"""Standard deviation of a grey copy below which an image shows nothing by which it could be compared."""
CHUNK = 4_000_000
SAME = 0.5
"""IoU from which boxes of copies are of the same object, drawn twice."""


@dataclass(frozen=True)
class Place:
    """An image of a split."""

    split: Split
    index: int

    @property
    def facts(self) -> ImageFacts:
        return self.split.facts[self.index]

    @property
    def path(self) -> str:
        return self.split.path(self.index)


def check_duplicates(subject: Subject) -> Findings:
    """Exact copies by SHA-256, and near ones by perceptual hash (DCT), confirmed on small copies of the pixels."""
    findings = Findings()
    places = [Place(split, index) for split in subject for index in split.facts]
    groups = copies(places)
    for group in groups:
        for other in group[1:]:
            for kind, cases in judge_copy(group[0], other):
                findings.add(kind, cases)
    if find_spec("imagehash") is None:
        findings.add(NO_HASH, [Case(split="", text=f"{plural(len(places), 'image')} compared byte by byte only")])
        return findings
    known = {id(place) for group in groups for place in group[1:]}
    for a, b, bits in near_pairs([place for place in places if id(place) not in known]):
        findings.add(*judge_near(a, b, bits))
    return findings


def copies(places: list[Place]) -> list[list[Place]]:
    """Groups of images whose files have the same content, in order; files that are listed in several splits, too."""
    groups: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        if place.facts.sha256:
            groups[place.facts.sha256].append(place)
    return [group for group in groups.values() if len(group) > 1]


def judge_copy(first: Place, other: Place) -> Iterator[tuple[Kind, list[Case]]]:
    """What it means that two images are the same."""
    name, conflict = name_of(other, first), describe_conflict(first, other)
    if first.split is not other.split:
        yield LEAK, [pair_case(first, other, name if first.path == other.path else f"is {name}", 0.0)]
    if conflict:
        yield CONFLICT, [pair_case(first, other, f"is {name}, {conflict}", 0.0)]
    elif first.split is other.split:
        yield COPIES, [pair_case(first, other, f"is {name}", 0.0)]


def judge_near(a: Place, b: Place, bits: int) -> tuple[Kind, list[Case]]:
    """What it means that two images are almost the same."""
    text = f"looks like {name_of(b, a)} ({bits} of 64 bits differ)"
    return (NEAR_COPIES if a.split is b.split else NEAR_LEAK), [pair_case(a, b, text, -float(bits))]


def name_of(place: Place, beside: Place) -> str:
    """The image's name, with its folder if it has the name of `beside`."""
    name = place.path.rpartition("/")[2]
    if place.path == beside.path:
        return f"also in {place.split.name}"
    shown = place.path if name == beside.path.rpartition("/")[2] else name
    return shown if place.split is beside.split else f"{shown} of {place.split.name}"


def pair_case(a: Place, b: Place, text: str, weight: float) -> Case:
    pictures = tuple(p.split.picture(p.index, caption=f"{p.split.name}: {p.path.rpartition('/')[2]}") for p in (a, b))
    return Case(split=a.split.name, file=a.path, text=text, weight=weight, pictures=pictures)


def describe_conflict(a: Place, b: Place) -> str:
    """How the objects of two copies differ; "" if they are the same, drawn twice."""
    mine, theirs = (list(p.split.rows(p.index)) for p in (a, b))
    if len(mine) != len(theirs):
        return f"which has {plural(len(theirs), 'box', 'boxes')} instead of {len(mine)}"
    if not mine:
        return ""
    first, second = torch.tensor(a.split.corners[mine]), torch.tensor(b.split.corners[theirs])
    differs = np.array([[a.split.class_name(i) != b.split.class_name(j) for j in theirs] for i in mine])
    iou = pairwise_iou(first, second).numpy()
    rows, columns = linear_sum_assignment(iou - 0.1 * differs, maximize=True)
    if (iou[rows, columns] < SAME).any():
        return "which has boxes at other places"
    wrong = np.flatnonzero(differs[rows, columns])
    if not len(wrong):
        return ""
    row, column = mine[rows[wrong[0]]], theirs[columns[wrong[0]]]
    return f"where a {a.split.class_name(row)} is a {b.split.class_name(column)}"


def near_pairs(places: list[Place]) -> Iterator[tuple[Place, Place, int]]:
    """Pairs of images that look the same: each with the most similar one before it, of its split and of others."""
    hashes = np.array([perceptual_hash(place.facts) for place in places], np.float32).reshape(-1, 64)
    groups = np.array([id(place.split) for place in places], np.int64)
    for first, second, bits in close_hashes(hashes, groups):
        if looks_same(places[first].facts, places[second].facts):
            yield places[first], places[second], bits


def perceptual_hash(facts: ImageFacts) -> Floats32:
    """64 bits of the low frequencies of an image (ImageHash's phash of its small grey copy), as -1 and 1."""
    import imagehash

    bits = imagehash.phash(Image.fromarray(facts.grey)).hash.flatten()
    signs: Floats32 = np.where(bits, np.float32(1), np.float32(-1))
    return signs


def close_hashes(hashes: Floats32, groups: Ints) -> Iterator[tuple[int, int, int]]:
    """(first, second, bits that differ) of hashes (N, 64) that differ in at most `BITS` bits.

    Each hash comes with the nearest one before it in its own group, and with the nearest in all other groups, so that
    n similar images give no more than 2 n pairs.
    """
    rows = max(1, CHUNK // max(1, len(hashes)))
    for start in range(0, len(hashes), rows):
        part = slice(start, min(start + rows, len(hashes)))
        bits = (hashes.shape[1] - hashes[part] @ hashes[: part.stop].T) / 2
        later = np.arange(part.stop)[None] >= np.arange(start, part.stop)[:, None]
        same = groups[part, None] == groups[None, : part.stop]
        for hidden in (later | ~same, later | same):
            masked = np.where(hidden, 65, bits)
            nearest = masked.argmin(axis=1)
            least = masked[np.arange(len(nearest)), nearest]
            for offset in np.flatnonzero(least <= BITS).tolist():
                yield int(nearest[offset]), start + offset, int(least[offset])


def looks_same(a: ImageFacts, b: ImageFacts) -> bool:
    """Whether the small copies of two images agree, brightness aside; flat images are compared with nothing."""
    grey_a, grey_b = a.grey.astype(np.float64), b.grey.astype(np.float64)
    if min(grey_a.std(), grey_b.std()) < FLAT:
        return False
    grey = np.abs((grey_a - grey_a.mean()) - (grey_b - grey_b.mean())).mean()
    colour_a, colour_b = a.colour.astype(np.float64), b.colour.astype(np.float64)
    shift = (colour_a - colour_b).mean()
    colour = np.abs(colour_a - colour_b - shift).mean()
    return bool(grey <= GREY_DIFFERENCE and colour <= COLOUR_DIFFERENCE)
