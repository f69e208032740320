"""The contract of a data set."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detkit.data.datasets.classes import (
    ClassOptions,
    align_classes,
    check_known,
    check_selection,
    count_objects,
    count_selection,
    locate_first,
    nearest_name,
    quote_for_yaml,
    relabel,
    select_classes,
)
from detkit.data.datasets.image_files import check_files
from detkit.data.datasets.images import ImageOptions, read_image, read_size
from detkit.data.datasets.problems import EMPTY, NO_SCORE, Problems
from detkit.data.datasets.records import Records, RecordsBuilder, Truth, count_differences
from detkit.structures import ClassMap
from detkit.utils.console import plural, shorten_list

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DetectionDataset", "Problems", "Records", "RecordsBuilder", "Subset", "check_files", "named_classes"]
log = logging.getLogger("detkit")


class DetectionDataset:
    """Images with boxes: a subclass's constructor calls `finish` with its classes and records.

    classes: names and category ids. records: annotations as flat arrays. problems: what reader and filters
    dropped, changed or left out, by kind, with file and box. image_options: how images are read, `data.images` of
    the config. left_out: images that could not be used, each with the reason. reads_files: whether the images are the
    files that records name; a subclass with a `load_image` of its own that only opens them otherwise says so.
    """

    name: str
    classes: ClassMap
    records: Records
    problems: Problems
    keep_empty: bool = True
    image_options = ImageOptions()
    left_out: Mapping[str, str] = MappingProxyType({})
    reads_files = True

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "load_image" in vars(cls) and "reads_files" not in vars(cls):
            cls.reads_files = False

    def __len__(self) -> int:
        return len(self.records)

    def load_image(self, index: int) -> Image:
        """The image as 8-bit RGB, upright."""
        return read_image(self.records.path(index), self.image_options)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image file, upright, by its header."""
        return read_size(self.records.path(index), self.image_options)

    def checked_image(self, index: int) -> Image:
        """`load_image`, held against the size that the annotation states; ValueError if they differ."""
        image = self.load_image(index)
        self.check_size(index, (image.height, image.width))
        return image

    def check_size(self, index: int, size: tuple[int, int]) -> None:
        """Raises ValueError if the annotation states another (height, width)."""
        height, width = self.records.sizes[index].tolist()
        if height > 0 and (height, width) != size:
            raise ValueError(
                f"the image has {size[1]}x{size[0]} pixels (upright by EXIF), its annotation says "
                f"{width}x{height}: the boxes can't be trusted. Correct one, or leave the image out of the split"
            )

    def finish(
        self,
        name: str,
        classes: ClassMap,
        builder: RecordsBuilder,
        *,
        keep_empty: bool,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
    ) -> None:
        """Takes over what a subclass has read; refuses a split without images, reports what was dropped.

        class_names, class_map, ignore_classes: see `ClassOptions`.
        """
        options = ClassOptions(class_names=class_names, class_map=class_map, ignore_classes=ignore_classes)
        self.name, self.classes, self.problems, self.keep_empty = name, classes, builder.problems, keep_empty
        self.records = builder.build()
        if not len(self.records):
            raise ValueError(f"{name}: the split has no images")
        if not len(classes):
            raise ValueError(f"{name}: no classes are declared, so there is nothing to detect")
        check_labels(self.records, classes, name)
        check_known(options, classes.names, name)
        self._choose(options)
        if not keep_empty:
            kept = find_images_with_objects(self.records, name)
            count_empty_images(self.problems, self.records, kept)
            self.records = select_images(self.records, kept, name)
        count_negative_areas(self.problems, self.records)
        self.problems.report(name)
        if self.records.is_ignore.all():
            log.warning("%s: no image has a usable box: there is nothing to learn or to evaluate", name)
        for alike in similar_names(self.classes.names):
            log.warning(
                "%s: the classes %s differ in case or spaces only and count as different", name, shorten_list(alike)
            )

    def choose_classes(self, options: ClassOptions) -> None:
        """Selects, merges, renames and ignores classes by name, and reports what that leaves out."""
        earlier, self.problems = self.problems, Problems()
        self._choose(options)
        self.problems.report(self.name)
        earlier.merge(self.problems)
        self.problems = earlier

    def _choose(self, options: ClassOptions) -> None:
        if not options:
            return
        classes, table = select_classes(options, self.classes, self.name)
        counts: Counter[str] = Counter()
        for old, count in zip(self.classes.names, count_objects(self.records, self.classes).tolist(), strict=True):
            counts[(options.class_map or {}).get(old, old)] += count
        unknown = check_selection(options, self.classes, counts, self.name)
        if unknown:
            log.warning("%s: no object of the classes %s of class_names", self.name, shorten_list(unknown))
        count_selection(self.problems, self.records, self.classes, table, options.class_map or {})
        self.classes, self.records = classes, relabel(self.records, table)

    def use_classes(self, classes: ClassMap, owner: str = "the training data") -> None:
        """Takes over another split's classes and their order, by name; category ids stay this split's own.

        ValueError if there are objects of a class that `classes` lacks. owner: whose classes they are.
        """
        if self.classes.names == classes.names:
            return
        mapped, table = align_classes(classes, self.classes)
        counts = count_objects(self.records, self.classes)
        strangers = [(n, int(c)) for n, c, new in zip(self.classes.names, counts, table, strict=True) if new < 0 and c]
        if strangers:
            first = locate_first(self.records, self.classes.names.index(strangers[0][0]))
            stranger = strangers[0][0]
            near = nearest_name(stranger, classes.names)
            there = [f"{n!r} ({plural(c, 'object')})" for n, c in strangers]
            raise ValueError(
                f"{self.name}: {shorten_list(there)}: "
                f"{'no classes' if len(strangers) > 1 else 'no class'} of {owner} (classes: "
                f"{shorten_list(list(classes.names))}); first object: {first}. Turn such objects into ignore regions "
                "by "
                f"ignore_classes: [{quote_for_yaml(stranger)}], or give them a class that is there by "
                f"class_map: {{{quote_for_yaml(stranger)}: {quote_for_yaml(near) if near else 'NAME_THAT_IS_THERE'}}}, "
                "in this data set or, for both splits, in data.classes"
            )
        self.classes, self.records = mapped, relabel(self.records, table)

    def summary(self) -> str:
        """Counts, on one line."""
        told = [kind.counted(found.count) for kind, found in self.problems]
        return f"{self.name}: " + "; ".join([self.counts(), *told, *describe_differences(self.records)])

    def counts(self) -> str:
        """Images, boxes by class, and ignore regions."""
        records = self.records
        counts = Counter(records.labels[~records.is_ignore].tolist())
        classes = ", ".join(f"{n} {counts.get(k, 0)}" for k, n in enumerate(self.classes.names[:12]))
        more = f" and {len(self.classes) - 12} more classes" if len(self.classes) > 12 else ""
        boxed = {int(i) for i in _image_of_box(records)}
        parts = [
            f"{plural(len(records), 'image')} ({len(records) - len(boxed)} without objects)",
            f"{plural(int((~records.is_ignore).sum()), 'box', 'boxes')}: {classes}{more}",
        ]
        if records.is_ignore.any():
            parts.append(plural(int(records.is_ignore.sum()), "ignore region"))
        return "; ".join(parts)

    def content_hash(self) -> str:
        """Changes when annotations, names or classes do: of training's boxes, then of the evaluation's."""
        text = f"{self.records.content_hash()} {self.classes}"
        return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}+{self.records.truth_hash()}"


def check_labels(records: Records, classes: ClassMap, name: str) -> None:
    """Raises ValueError that names the first image with a label that no class has."""
    truth = records.truth or records.own_truth()
    wrong = np.flatnonzero((truth.labels < 0) | (truth.labels >= len(classes)))
    if len(wrong):
        image = int(np.searchsorted(truth.ends, wrong[0], side="right"))
        raise ValueError(
            f"{name}: {records.path(image)} has the label {int(truth.labels[wrong[0]])}, but there are {len(classes)} "
            f"classes: labels run from 0 to {len(classes) - 1}"
        )


def describe_differences(records: Records) -> list[str]:
    """How many objects evaluation measures against, where training has others; empty where they are the same."""
    missing, differing = count_differences(records)
    truth = records.truth or records.own_truth()
    if not missing and not differing:
        return []
    count = int((~truth.is_ignore).sum())
    parts = [f"{missing} {'is' if missing == 1 else 'are'} left out of training"] * bool(missing)
    parts += [f"{differing} {'differs' if differing == 1 else 'differ'} in training"] * bool(differing)
    boxes = plural(count, "box", "boxes")
    return [f"evaluation uses the {boxes} of the file, of which {' and '.join(parts)}"]


def _image_of_box(records: Records) -> list[int]:
    counts = np.diff(records.ends, prepend=0)
    image = np.repeat(np.arange(len(records)), counts)
    found: list[int] = np.unique(image[~records.is_ignore]).tolist()
    return found


def count_empty_images(problems: Problems, records: Records, kept: Sequence[int]) -> None:
    """Counts the images that are left out."""
    there = set(kept)
    for i in range(len(records)):
        if i not in there:
            problems.add(EMPTY, records.path(i))


def count_negative_areas(problems: Problems, records: Records) -> None:
    """Counts the objects whose area is below zero, which no area range of the evaluation contains."""
    truth = records.truth or records.own_truth()
    for at in np.flatnonzero((truth.area < 0) & ~truth.is_ignore).tolist():
        image = int(np.searchsorted(truth.ends, at, side="right"))
        number = at - (int(truth.ends[image - 1]) if image else 0) + 1
        problems.add(NO_SCORE, f"{records.path(image).rpartition('/')[2]}, box {number}: area={truth.area[at]:g}")


class Subset(DetectionDataset):
    """Some images of another data set, in the order of `indices`."""

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int], name: str) -> None:
        self.whole, self.indices = dataset, list(indices)
        self.image_options, self.reads_files = dataset.image_options, dataset.reads_files
        self.name, self.classes, self.problems = name, dataset.classes, Problems()
        if not self.indices:
            raise ValueError(f"{name}: no image of the {len(dataset)} is in it")
        self.records = select_images(dataset.records, self.indices, name)

    def load_image(self, index: int) -> Image:
        """See `DetectionDataset.load_image`."""
        return self.whole.load_image(self.indices[index])


def find_images_with_objects(records: Records, name: str) -> list[int]:
    """Numbers of the images with at least one object; an error if none has."""
    kept = _image_of_box(records)
    if not kept:
        raise ValueError(f"{name}: keep_empty: false removed all {len(records)} images, for none has a usable box")
    return kept


def select_images(records: Records, indices: Sequence[int], name: str) -> Records:
    """The annotations of some images."""
    if len(set(indices)) != len(indices):
        raise ValueError(f"{name}: an image is in it twice")
    chosen = np.asarray(indices, np.int64)
    paths = [os.fsencode(records.path(i)) for i in indices]
    rows, ends = _rows(records.ends, chosen)
    truth = records.truth
    if truth is not None:
        its_rows, its_ends = _rows(truth.ends, chosen)
        truth = Truth(
            its_ends, truth.boxes[its_rows], truth.labels[its_rows], truth.is_ignore[its_rows], truth.area[its_rows],
            truth.trained[its_rows],
        )  # fmt: skip
    return Records(
        image_ids=records.image_ids[chosen],
        path_bytes=np.frombuffer(b"".join(paths), dtype=np.uint8),
        path_ends=np.cumsum([len(p) for p in paths], dtype=np.int64),
        sizes=records.sizes[chosen],
        ends=ends,
        boxes=records.boxes[rows],
        labels=records.labels[rows],
        is_ignore=records.is_ignore[rows],
        area=records.area[rows],
        truth=truth,
    )


def _rows(ends: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the boxes of some images, and where each of these images ends then."""
    starts = np.concatenate((np.zeros(1, np.int64), ends))[chosen]
    counts = ends[chosen] - starts
    new_ends = np.cumsum(counts)
    shift = np.repeat(starts - (new_ends - counts), counts)
    return np.arange(int(counts.sum()), dtype=np.int64) + shift, new_ends


def named_classes(found: Sequence[tuple[int, str]], stated: Sequence[str] | None, name: str) -> ClassMap:
    """Declared (id, name) pairs, sorted by id, held against the class names that a config states."""
    pairs = sorted(found)
    classes = ClassMap(tuple(n for _, n in pairs), tuple(i for i, _ in pairs))
    if stated is not None and set(stated) != set(classes.names):
        extra = [n for n in stated if n not in classes.names]
        missing = [n for n in classes.names if n not in stated]
        raise ValueError(
            f"{name}: class_names states {len(stated)} classes, the data set has {len(classes)}"
            + (f"; not in the data: {shorten_list(extra)}" if extra else "")
            + (f"; not stated: {shorten_list(missing)}" if missing else "")
            + ". Leave class_names out to take those of the data set"
        )
    if stated is not None:
        ids = dict(zip(classes.names, classes.ids, strict=True))
        classes = ClassMap(tuple(stated), tuple(ids[n] for n in stated))
    return classes


def similar_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that are one and the same but for case and spaces, as after a slip."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
