"""The classes of a split: selected, merged and renamed by name, and taken over from another split."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import count

import numpy as np

from detkit.data.datasets.problems import IGNORED, RENAMED, UNSELECTED, Problems
from detkit.data.datasets.records import ANY_CLASS, BoxTable, Records, select_boxes
from detkit.structures import ClassMap
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Ints

log = logging.getLogger("detkit")

LEFT_OUT, AS_IGNORED = -1, -2
"""New labels of classes whose objects are left out, or become ignore regions."""
YAML_WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n", "nan", "inf")
TYPO = 0.8
"""Similarity above which a class name that the data lacks is taken for a typo of one that it has."""


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """The classes of both splits. A data set's own settings of these names come first.

    Args:
        class_names: the classes and their order, as named after class_map; objects of others are left out, counted and
            named. null takes the classes of the training data.
        class_map: {old: new} renames classes; classes with one new name are merged.
        ignore_classes: classes, as named after class_map, whose objects become ignore regions for all classes.
    """

    class_names: list[str] | None = None
    class_map: dict[str, str] | None = None
    ignore_classes: list[str] | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.class_names, self.class_map, self.ignore_classes))


def quote_for_yaml(name: str) -> str:
    """A class name as written in YAML, in quotes where YAML would read something else."""
    plain = re.fullmatch(r"[^\W\d][\w-]*( [\w-]+)*", name) and name.lower() not in YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


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
            f"{name}: {key}: the data has no class {shorten_list([with_near(n, known) for n in unknown])}. "
            f"Its classes: {shorten_list(list(dict.fromkeys(known))) or 'none'}"
        )


def with_near(name: str, known: Sequence[str]) -> str:
    """The name, and the known name that it may be a typo of."""
    near = nearest_name(name, known)
    return f"{name!r} (did you mean {near!r}?)" if near else repr(name)


def ignore_case_and_spaces(name: str) -> str:
    """A name in the form in which names that differ in case and spaces only are equal."""
    return "".join(name.casefold().split())


def nearest_name(name: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The known name that differs least, by difflib's ratio; case, spaces and the order of letters do not count."""
    plain = {ignore_case_and_spaces(k): k for k in known}
    wanted = ignore_case_and_spaces(name)
    anagrams = [k for k in plain if sorted(k) == sorted(wanted)]
    match = anagrams or get_close_matches(wanted, list(plain), n=1, cutoff=cutoff)
    return plain[match[0]] if match else None


def similar_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that differ in case and spaces only, as after a typo."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(ignore_case_and_spaces(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def apply_options(
    options: ClassOptions, classes: ClassMap, records: Records, name: str, problems: Problems
) -> tuple[ClassMap, Records]:
    """The classes and records with the options applied; counts in `problems` what that leaves out or renames."""
    if not options:
        return classes, records
    selected, table = select_classes(options, classes, name)
    check_selection(options, classes, records, name)
    count_selection(problems, records, classes, table, options.class_map or {})
    return selected, relabel(records, table)


def select_classes(options: ClassOptions, classes: ClassMap, name: str) -> tuple[ClassMap, Ints]:
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
        raise ValueError(
            f"{name}: class_map: the new name of {shorten_list(nameless)} is empty; ignore_classes leaves a class out"
        )
    if names is not None and not names:
        raise ValueError(f"{name}: class_names is empty; leave it out to take all classes")
    twice = [n for n, count in Counter(names or []).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: class_names lists {shorten_list(twice)} more than once")
    both = [n for n in names or [] if n in (options.ignore_classes or [])]
    if both:
        lists = "both class_names and ignore_classes"
        raise ValueError(f"{name}: {shorten_list(both)} is in {lists}; remove it from one of them")


def assign_ids(names: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    """The category id of each name; a name without one gets a number that no other has."""
    free = count(max(ids.values(), default=0) + 1)
    return tuple(ids[name] if name in ids else next(free) for name in names)


def check_selection(options: ClassOptions, classes: ClassMap, records: Records, name: str) -> None:
    """Warns of class_names that the data does not have; ValueError if one seems a typo of a class with objects."""
    counts: Counter[str] = Counter()
    for old, objects in zip(classes.names, count_objects(records, classes).tolist(), strict=True):
        counts[(options.class_map or {}).get(old, old)] += objects
    names = options.class_names or []
    unknown = [n for n in names if n not in counts]
    others = [n for n, count in counts.items() if count and n not in names and n not in (options.ignore_classes or [])]
    typos = [n for n in unknown if nearest_name(n, others, TYPO)]
    if typos or (names and len(unknown) == len(names)):
        raise ValueError(
            f"{name}: class_names: the data has no class "
            f"{shorten_list([with_near(n, others) for n in typos or unknown])}. Its classes: "
            f"{shorten_list(list(counts))}. class_map: {{old: new}} renames a class; leave class_names out to take all"
        )
    if unknown:
        log.warning("%s: no object of %s, which class_names lists", name, shorten_list(unknown))


def relabel(records: Records, table: Ints) -> Records:
    """The records with new labels; boxes of classes that are left out are gone, ignored ones are ignore regions."""
    return replace(_relabel(records, table), truth=_relabel(records.truth, table))


def _relabel(boxes: BoxTable, table: Ints) -> BoxTable:
    # The last entry of the table is reached by ANY_CLASS, which does not change.
    new = np.append(table, AS_IGNORED)[boxes.labels]
    keep, ignored = new != LEFT_OUT, new == AS_IGNORED
    kept_before = np.concatenate((np.zeros(1, np.int64), np.cumsum(keep)))
    labels, is_ignore = np.where(ignored, ANY_CLASS, new), boxes.is_ignore | ignored
    return select_boxes(replace(boxes, labels=labels, is_ignore=is_ignore), keep, kept_before[boxes.ends])


def count_objects(records: Records, classes: ClassMap) -> Ints:
    """(K,) objects of each class in the file, without ignore regions."""
    truth = records.truth
    counts: Ints = np.bincount(truth.labels[~truth.is_ignore], minlength=len(classes))
    return counts


def locate_first(records: Records, label: int) -> str:
    """The first object of a class, as text."""
    truth = records.truth
    image, number = records.locate(int(np.flatnonzero((truth.labels == label) & ~truth.is_ignore)[0]))
    return f"image {int(records.image_ids[image])} ({records.file_name(image)}), box {number}"


def count_selection(
    problems: Problems, records: Records, classes: ClassMap, table: Ints, class_map: Mapping[str, str]
) -> None:
    """Counts the objects whose class is left out, ignored, or renamed by class_map, class by class."""
    counts = count_objects(records, classes)
    for label, new in enumerate(table.tolist()):
        old = classes.names[label]
        name = class_map.get(old, old)
        if counts[label] and (new < 0 or name != old):
            kind = RENAMED if new >= 0 else IGNORED if new == AS_IGNORED else UNSELECTED
            change = old if name == old else f"{old} -> {name}"
            text = f"{change}: {counts[label]}, the first in {locate_first(records, label)}"
            problems.add(kind, text, count=int(counts[label]))


def adopt_classes(
    classes: ClassMap, data_classes: ClassMap, records: Records, name: str, owner: str
) -> tuple[ClassMap, Records]:
    """The classes of `owner` with the data's category ids, and the records with their labels.

    ValueError if there are objects of a class that `classes` lacks.
    """
    aligned, table = align_classes(classes, data_classes)
    counts = count_objects(records, data_classes)
    strangers = [(n, int(c)) for n, c, new in zip(data_classes.names, counts, table, strict=True) if new < 0 and c]
    if strangers:
        stranger = strangers[0][0]
        first = locate_first(records, data_classes.names.index(stranger))
        counted = shorten_list([f"{n!r} ({plural(c, 'object')})" for n, c in strangers])
        known = nearest_name(stranger, classes.names)
        raise ValueError(
            f"{name}: {counted} {'are not classes' if len(strangers) > 1 else 'is not a class'} of {owner} (classes: "
            f"{shorten_list(classes.names)}); first object: {first}. Turn such objects into ignore regions with "
            f"ignore_classes: [{quote_for_yaml(stranger)}], or map them to a known class with class_map: "
            f"{{{quote_for_yaml(stranger)}: {quote_for_yaml(known) if known else 'KNOWN_CLASS'}}}, "
            "in this data set or, for both splits, in data.classes"
        )
    return aligned, relabel(records, table)


def align_classes(classes: ClassMap, data_classes: ClassMap) -> tuple[ClassMap, Ints]:
    """`classes` with the category ids that the data has for their names, and the table of new labels for the data.

    A class that the data lacks keeps its id, or gets a free one if the data uses it for another class.
    """
    label = {n: k for k, n in enumerate(classes.names)}
    table = np.array([label.get(n, LEFT_OUT) for n in data_classes.names], np.int64)
    data_ids = dict(zip(data_classes.names, data_classes.ids, strict=True))
    ids = {n: data_ids[n] for n in classes.names if n in data_ids}
    for name, category in zip(classes.names, classes.ids, strict=True):
        if name not in ids and category not in ids.values() and category not in data_ids.values():
            ids[name] = category
    return ClassMap(classes.names, assign_ids(classes.names, ids)), table
