"""Which classes a split has: selected, merged and renamed by name, and carried over from another split."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.data.datasets.problems import IGNORED, RENAMED, UNSELECTED, Problems
from detkit.data.datasets.records import ANY_CLASS, Records, Truth
from detkit.structures import ClassMap
from detkit.utils.console import shorten_list

LEFT_OUT, AS_IGNORED = -1, -2
"""What a table of new labels holds for a class that is no class any more."""


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """The classes of both splits.

    class_map: {old: new} renames classes; classes with one new name are merged. ignore_classes: classes whose
    objects become ignore regions for all classes. class_names: the classes and their order; objects of others
    are left out, counted and named. Null takes the classes of the training data. The last two are names after
    class_map. A data set's own settings of these names come first.
    """

    class_names: list[str] | None = None
    class_map: dict[str, str] | None = None
    ignore_classes: list[str] | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.class_names, self.class_map, self.ignore_classes))


def quote_for_yaml(name: str) -> str:
    """A class name as it stands in a config, in quotes where YAML would read it otherwise."""
    plain = re.fullmatch(r"[^\W\d][\w-]*( [\w-]+)*", name) and name.lower() not in YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


YAML_WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n", "nan", "inf")


def check_known(options: ClassOptions, names: Sequence[str], name: str) -> None:
    """Raises ValueError for a name in class_map or ignore_classes that no class of `names` has."""
    known = list(names)
    check_names(options.class_map or {}, known, name, "class_map")
    renamed = [(options.class_map or {}).get(n, n) for n in known]
    check_names(options.ignore_classes or [], renamed, name, "ignore_classes")


def check_names(given: Sequence[str] | Mapping[str, str], known: Sequence[str], name: str, key: str) -> None:
    """Raises ValueError that lists the names that are not known, with what is near."""
    unknown = [n for n in given if n not in known]
    if unknown:
        raise ValueError(
            f"{name}: {key} names {shorten_list([with_near(n, known) for n in unknown])}, which the data does not "
            "have. "
            f"Its classes: {shorten_list(list(dict.fromkeys(known))) or 'none'}"
        )


def with_near(name: str, known: Sequence[str]) -> str:
    """The name, and what it may be a slip of."""
    near = nearest_name(name, known)
    return f"{name!r} (did you mean {near!r}?)" if near else repr(name)


def nearest_name(name: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """A known name that differs little, by difflib's ratio; case, spaces and the order of letters count for nothing."""
    plain = {"".join(k.casefold().split()): k for k in known}
    wanted = "".join(name.casefold().split())
    turned = [k for k in plain if sorted(k) == sorted(wanted)]
    match = turned or get_close_matches(wanted, list(plain), n=1, cutoff=cutoff)
    return plain[match[0]] if match else None


SLIP = 0.8
"""Similarity from which a class name that the data lacks is taken for a slip of one that it has."""


def select_classes(options: ClassOptions, classes: ClassMap, name: str) -> tuple[ClassMap, NDArray[np.int64]]:
    """New classes, and for each old label its new one (or LEFT_OUT, AS_IGNORED)."""
    check_options(options, name)
    mapping, ignored = options.class_map or {}, set(options.ignore_classes or [])
    renamed = [mapping.get(n, n) for n in classes.names]
    ids: dict[str, int] = {}
    for new, old, category in zip(renamed, classes.names, classes.ids, strict=True):
        if new not in ids or new == old:
            ids[new] = category
    names = [n for n in dict.fromkeys(renamed) if n not in ignored] if options.class_names is None else []
    names = names or list(options.class_names or [])
    label = {n: k for k, n in enumerate(names)}
    table = [label.get(n, AS_IGNORED if n in ignored else LEFT_OUT) for n in renamed]
    return ClassMap(tuple(names), assign_ids(names, ids)), np.array(table, np.int64)


def check_options(options: ClassOptions, name: str) -> None:
    """Raises ValueError for settings that contradict themselves."""
    names = options.class_names
    nameless = [old for old, new in (options.class_map or {}).items() if not new.strip()]
    if nameless:
        raise ValueError(f"{name}: class_map gives {shorten_list(nameless)} no name; ignore_classes leaves a class out")
    if names is not None and not names:
        raise ValueError(f"{name}: class_names is empty; leave it out to take all classes")
    twice = [n for n, count in Counter(names or []).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: class_names lists {shorten_list(twice)} more than once")
    both = [n for n in names or [] if n in (options.ignore_classes or [])]
    if both:
        raise ValueError(
            f"{name}: {shorten_list(both)} stands in class_names and in ignore_classes; keep it in one of them"
        )


def assign_ids(names: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    """The category id of each name; a name without one gets a number that no other has."""
    free = max(ids.values(), default=0) + 1
    found = []
    for name in names:
        if name in ids:
            found.append(ids[name])
        else:
            found.append(free)
            free += 1
    return tuple(found)


def check_selection(options: ClassOptions, classes: ClassMap, counts: Mapping[str, int], name: str) -> list[str]:
    """Stated names that the data does not have; ValueError if one seems to be a slip of a class with objects.

    counts: objects of each class of the data, by its name after class_map.
    """
    names = options.class_names or []
    unknown = [n for n in names if n not in counts]
    others = [n for n, count in counts.items() if count and n not in names and n not in (options.ignore_classes or [])]
    slips = [n for n in unknown if nearest_name(n, others, SLIP)]
    if slips or (names and len(unknown) == len(names)):
        raise ValueError(
            f"{name}: class_names states {shorten_list([with_near(n, others) for n in slips or unknown])}, "
            f"which the data does not have. Its classes: {shorten_list(list(counts))}. "
            "class_map: {old: new} renames a class; class_names left out takes all"
        )
    return unknown


def relabel(records: Records, table: NDArray[np.int64]) -> Records:
    """The records with new labels; boxes of classes that are left out are gone, ignored ones are ignore regions."""
    parts = _relabelled(records.ends, records.labels, records.is_ignore, table)
    changed = replace(
        records, ends=parts.ends, labels=parts.labels, is_ignore=parts.is_ignore, boxes=records.boxes[parts.keep],
        area=records.area[parts.keep], truth=None,
    )  # fmt: skip
    truth = records.truth
    if truth is None:
        return changed
    parts = _relabelled(truth.ends, truth.labels, truth.is_ignore, table)
    return replace(
        changed,
        truth=Truth(
            parts.ends,
            truth.boxes[parts.keep],
            parts.labels,
            parts.is_ignore,
            truth.area[parts.keep],
            truth.trained[parts.keep],
        ),
    )


@dataclass(frozen=True)
class _Parts:
    keep: NDArray[np.bool_]
    ends: NDArray[np.int64]
    labels: NDArray[np.int64]
    is_ignore: NDArray[np.bool_]


def _relabelled(
    ends: NDArray[np.int64], labels: NDArray[np.int64], is_ignore: NDArray[np.bool_], table: NDArray[np.int64]
) -> _Parts:
    # The last entry of the table is reached by ANY_CLASS, which stays what it is.
    new = np.append(table, AS_IGNORED)[labels]
    keep = new != LEFT_OUT
    ignored = is_ignore | (new == AS_IGNORED)
    new = np.where(new == AS_IGNORED, ANY_CLASS, new)
    kept = np.concatenate((np.zeros(1, np.int64), np.cumsum(keep)))
    return _Parts(keep, kept[ends], new[keep], ignored[keep])


def count_objects(records: Records, classes: ClassMap) -> NDArray[np.int64]:
    """(K,) objects of the file of each class, ignore regions not counted."""
    truth = records.truth or records.own_truth()
    counts: NDArray[np.int64] = np.bincount(truth.labels[~truth.is_ignore], minlength=len(classes))
    return counts


def locate_first(records: Records, label: int) -> str:
    """The first object of a class, as text."""
    truth = records.truth or records.own_truth()
    at = int(np.flatnonzero((truth.labels == label) & ~truth.is_ignore)[0])
    image = int(np.searchsorted(truth.ends, at, side="right"))
    number = at - (int(truth.ends[image - 1]) if image else 0) + 1
    return f"image {int(records.image_ids[image])} ({records.path(image).rpartition('/')[2]}), box {number}"


def count_selection(
    problems: Problems, records: Records, classes: ClassMap, table: NDArray[np.int64], names: Mapping[str, str]
) -> None:
    """Counts the objects whose class is left out, ignored or, by `names`, another one, class by class."""
    counts = count_objects(records, classes)
    for label, new in enumerate(table.tolist()):
        own = classes.names[label]
        name = names.get(own, own)
        if counts[label] and (new < 0 or name != own):
            kind = RENAMED if new >= 0 else IGNORED if new == AS_IGNORED else UNSELECTED
            change = own if name == own else f"{own} -> {name}"
            text = f"{change}: {counts[label]}, the first in {locate_first(records, label)}"
            problems.add(kind, text, int(counts[label]))


def align_classes(classes: ClassMap, own: ClassMap) -> tuple[ClassMap, NDArray[np.int64]]:
    """`classes` by name, with the ids of `own` where it has them, and the table of new labels for `own`'s."""
    label = {n: k for k, n in enumerate(classes.names)}
    ids = dict(zip(own.names, own.ids, strict=True))
    table = np.array([label.get(n, LEFT_OUT) for n in own.names], np.int64)
    return ClassMap(classes.names, _ids_of(classes, ids)), table


def _ids_of(classes: ClassMap, own: Mapping[str, int]) -> tuple[int, ...]:
    """Own ids by name; the trained one, or a free one, for a class that the data does not have."""
    ids: dict[str, Any] = {n: own[n] for n in classes.names if n in own}
    for name, trained in zip(classes.names, classes.ids, strict=True):
        if name not in ids and trained not in ids.values() and trained not in own.values():
            ids[name] = trained
    return assign_ids(classes.names, ids)
