"""Classes: names that are nearly the same, few boxes, classes that a split lacks, and the balance of the splits."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np

from detkit.data.doctor.findings import Case, Findings, Kind
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Ints

ALIKE = Kind(
    "alike-names", "warning", "class names are nearly the same, and count as different classes",
    "if they mean the same, merge them: data.classes.class_map={wrong: right}",
)  # fmt: skip
FEW = Kind("few-boxes", "warning", "classes have few training boxes", "label more, or merge such classes by class_map")
NO_TRAINING = Kind(
    "no-training-box", "warning", "classes have boxes in another split and none in training, so they can't be learnt",
    "move images with them into training, or leave the class out (ignore_classes)",
)  # fmt: skip
NO_VALIDATION = Kind(
    "no-validation-box", "warning", "classes have no validation box, so they have no AP (n/a)",
    "move images with them into validation, or split anew: detkit data split",
)  # fmt: skip
UNBALANCED = Kind(
    "unbalanced-splits", "warning", "a class has a much larger share of one split than of another",
    "split anew, stratified: detkit data split",
)  # fmt: skip
SMALL_SPLIT = Kind(
    "small-split", "note", "a split is so small that its AP is a rough figure", "report its AP with a spread over seeds"
)
LONG_TAIL = Kind(
    "long-tail", "note", "the most frequent class has far more boxes than the rarest",
    "try focal losses or ClassBalancedDataset, and read AP class by class",
)  # fmt: skip
FEW_BOXES = 20
TAIL = 50
SHARE = 3.0
"""Factor between the shares of a class in two splits that is worth a finding, if chance explains it badly."""
SURE = 1e-4
"""Probability by chance below which shares differ, over all classes."""
SMALL = 30
"""Images."""


def check_classes(subject: Subject) -> Findings:
    """What is odd in the classes of all splits together."""
    findings = Findings()
    names, splits = subject.class_names, list(subject)
    counts = {split.name: counts_by_name(split, names) for split in splits}
    findings.add(ALIKE, alike(names, sum(counts.values(), np.zeros(len(names), np.int64))))
    first, *others = splits
    findings.add(FEW, few(first, names, counts[first.name]))
    findings.add(LONG_TAIL, long_tail(first, names, counts[first.name]))
    for other in others:
        findings.add(NO_TRAINING, untrained(first, other, names, counts))
        if other.name == "val" or len(splits) == 2:
            missing = [n for n, c, o in zip(names, counts[first.name], counts[other.name], strict=True) if c and not o]
            findings.add(NO_VALIDATION, [Case(split=other.name, text=shorten_list(missing))] if missing else [])
        findings.add(UNBALANCED, unbalanced(first, other, names, counts))
        small = [Case(split=other.name, text=plural(len(other.dataset), "image"))]
        findings.add(SMALL_SPLIT, small if len(other.dataset) < SMALL else [])
    return findings


def counts_by_name(split: Split, names: Sequence[str]) -> Ints:
    """Usable objects of each of `names`."""
    counts = Counter(split.class_name(row) for row in split.objects.tolist())
    return np.array([counts[name] for name in names], np.int64)


def alike(names: Sequence[str], counts: Ints) -> Iterator[Case]:
    """Pairs of names that differ as typos, plurals and spellings do."""
    number = dict(zip(names, counts.tolist(), strict=True))
    for a, b in combinations(names, 2):
        if (why := likeness(a, b)) is not None:
            text = f"{a!r} ({plural(number[a], 'box', 'boxes')}) and {b!r} ({plural(number[b], 'box', 'boxes')}): {why}"
            yield Case(split="", text=text)


def likeness(a: str, b: str) -> str | None:
    """Why two names may mean the same; None if nothing suggests it. A digit that differs is meant."""
    plain_a, plain_b = plain(a), plain(b)
    if plain_a == plain_b:
        return "they differ in case, accents, spaces or punctuation only"
    short, long = sorted((plain_a, plain_b), key=len)
    if len(long) - len(short) > 3 or numbers(plain_a) != numbers(plain_b):
        return None
    if len(short) >= 3 and long in (short + "s", short + "es", short[:-1] + "ies"):
        return "one may be the plural of the other"
    if len(short) >= 5 and is_typo(plain_a, plain_b):
        return "one may be a typo of the other"
    return None


@lru_cache(maxsize=10_000)  # each is compared with all others
def plain(name: str) -> str:
    """A name without case, accents, spaces and punctuation."""
    folded = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(c for c in folded if not unicodedata.combining(c))
    return re.sub(r"[\W_]+", "", letters) or letters


@lru_cache(maxsize=10_000)
def numbers(name: str) -> list[str]:
    """The numbers in a name."""
    return re.findall(r"\d+", name)


def is_typo(a: str, b: str) -> bool:
    """Whether one letter more, less, another or two swapped make one name of the other."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    swapped = rest_a[:2] == rest_b[:2][::-1] and rest_a[2:] == rest_b[2:]
    return rest_a[1:] == rest_b or rest_a == rest_b[1:] or rest_a[1:] == rest_b[1:] or swapped


def few(split: Split, names: Sequence[str], counts: Ints) -> Iterator[Case]:
    for name, count in sorted(zip(names, counts.tolist(), strict=True), key=lambda item: item[1]):
        if 0 < count < FEW_BOXES:
            yield Case(split=split.name, text=f"{name}: {plural(count, 'box', 'boxes')}", weight=-count)


def long_tail(split: Split, names: Sequence[str], counts: Ints) -> Iterator[Case]:
    present = np.flatnonzero(counts)
    if len(present) > 1 and counts.max() >= TAIL * counts[present].min():
        most, least = int(counts.argmax()), int(present[counts[present].argmin()])
        text = f"{names[most]} has {counts[most]} boxes, {names[least]} has {counts[least]}"
        yield Case(split=split.name, text=text)


def untrained(first: Split, other: Split, names: Sequence[str], counts: dict[str, Ints]) -> Iterator[Case]:
    for name, trained, number in zip(names, counts[first.name], counts[other.name], strict=True):
        if number and not trained:
            yield Case(split=other.name, text=f"{name}: {plural(int(number), 'box', 'boxes')}, none in {first.name}")


def unbalanced(first: Split, other: Split, names: Sequence[str], counts: dict[str, Ints]) -> Iterator[Case]:
    """Classes whose images are too many or too few in a split to be chance (Fisher's exact test on images)."""
    from scipy.stats import fisher_exact

    totals = len(first.dataset), len(other.dataset)
    for name, boxes in zip(names, counts[first.name] + counts[other.name], strict=True):
        if not boxes:
            continue
        images = images_with(first, name), images_with(other, name)
        shares = [n / total for n, total in zip(images, totals, strict=True)]
        if not min(shares) or max(shares) < SHARE * min(shares):
            continue
        table = [[images[0], totals[0] - images[0]], [images[1], totals[1] - images[1]]]
        if fisher_exact(table).pvalue * len(names) < SURE:
            percent = [f"{100 * share:.0f} %" for share in shares]
            text = f"{name}: in {percent[1]} of the images, and in {percent[0]} of those of {first.name}"
            yield Case(split=other.name, text=text)


def images_with(split: Split, name: str) -> int:
    """Number of images with an object of a class."""
    names = split.dataset.classes.names
    if name not in names:
        return 0
    rows = split.objects[split.truth.labels[split.objects] == names.index(name)]
    return len(np.unique(split.image_of[rows]))
