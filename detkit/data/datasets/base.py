"""The contract of a data set."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from detkit.data.datasets.classes import (
    ClassOptions,
    align_classes,
    check_known,
    check_selection,
    count_objects,
    count_selection,
    ignore_case_and_spaces,
    locate_first,
    nearest_name,
    quote_for_yaml,
    relabel,
    select_classes,
)
from detkit.data.datasets.image_files import check_files
from detkit.data.datasets.images import ImageOptions, read_image, read_size
from detkit.data.datasets.problems import EMPTY, NO_SCORE, Problems
from detkit.data.datasets.records import Records, RecordsBuilder, count_differences, select_images
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
    files that records name; false for a subclass with its own `load_image`, unless it sets `reads_files = True`.
    """

    name: str
    classes: ClassMap
    records: Records
    problems: Problems
    keep_empty: bool = True
    image_options = ImageOptions()
    left_out: Mapping[str, str] = MappingProxyType({})
    reads_files = True

    def __init_subclass__(cls, **more: object) -> None:
        super().__init_subclass__(**more)
        if "load_image" in vars(cls) and "reads_files" not in vars(cls):
            cls.reads_files = False

    def __len__(self) -> int:
        return len(self.records)

    def load_image(self, index: int) -> Image:
        """An image as 8-bit RGB, upright."""
        return read_image(self.records.path(index), self.image_options)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of an upright image file, from its header."""
        return read_size(self.records.path(index), self.image_options)

    def checked_image(self, index: int) -> Image:
        """The image; ValueError if its size is not the one that the annotation states."""
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
        """Packs and checks what a subclass has read, applies the class settings (`ClassOptions`), reports problems."""
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
            stranger = strangers[0][0]
            first = locate_first(self.records, self.classes.names.index(stranger))
            counted = shorten_list([f"{n!r} ({plural(c, 'object')})" for n, c in strangers])
            known = nearest_name(stranger, classes.names)
            raise ValueError(
                f"{self.name}: {counted}: {'no classes' if len(strangers) > 1 else 'no class'} of {owner} (classes: "
                f"{shorten_list(classes.names)}); first object: {first}. Turn such objects into ignore regions by "
                f"ignore_classes: [{quote_for_yaml(stranger)}], or give them a class that is there by class_map: "
                f"{{{quote_for_yaml(stranger)}: {quote_for_yaml(known) if known else 'NAME_THAT_IS_THERE'}}}, "
                "in this data set or, for both splits, in data.classes"
            )
        self.classes, self.records = mapped, relabel(self.records, table)

    def summary(self) -> str:
        """Counts, on one line."""
        problems = [kind.counted(occurrences.count) for kind, occurrences in self.problems]
        return f"{self.name}: " + "; ".join([self.counts(), *problems, *describe_differences(self.records)])

    def counts(self) -> str:
        """Images, boxes by class, and ignore regions."""
        records = self.records
        objects = Counter(records.labels[~records.is_ignore].tolist())
        classes = shorten_list([f"{name} {objects[label]}" for label, name in enumerate(self.classes.names)], 12)
        classes += " classes" if len(self.classes) > 12 else ""
        empty = len(records) - len(_images_of_objects(records))
        parts = [
            f"{plural(len(records), 'image')} ({empty} without objects)",
            f"{plural(objects.total(), 'box', 'boxes')}: {classes}",
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
    labels = records.truth.labels
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        image, _ = records.locate(int(wrong[0]))
        raise ValueError(
            f"{name}: {records.path(image)} has the label {int(labels[wrong[0]])}, but there are {len(classes)} "
            f"classes: labels run from 0 to {len(classes) - 1}"
        )


def describe_differences(records: Records) -> list[str]:
    """How many objects of the evaluation training lacks or has with another box; empty if none."""
    missing, differing = count_differences(records)
    if not missing and not differing:
        return []
    parts = [f"{missing} {'is' if missing == 1 else 'are'} left out of training"] * bool(missing)
    parts += [f"{differing} {'differs' if differing == 1 else 'differ'} in training"] * bool(differing)
    boxes = plural(int((~records.truth.is_ignore).sum()), "box", "boxes")
    return [f"evaluation uses the {boxes} of the file, of which {' and '.join(parts)}"]


def count_negative_areas(problems: Problems, records: Records) -> None:
    """Counts the objects whose area is below zero, which no area range of the evaluation contains."""
    truth = records.truth
    for row in np.flatnonzero((truth.area < 0) & ~truth.is_ignore).tolist():
        image, number = records.locate(row)
        problems.add(NO_SCORE, f"{records.file_name(image)}, box {number}: area={truth.area[row]:g}")


def _images_of_objects(records: Records) -> list[int]:
    image = np.repeat(np.arange(len(records)), np.diff(records.ends, prepend=0))
    images: list[int] = np.unique(image[~records.is_ignore]).tolist()
    return images


def find_images_with_objects(records: Records, name: str) -> list[int]:
    """Indices of the images with at least one object; ValueError if none has."""
    images = _images_of_objects(records)
    if not images:
        raise ValueError(f"{name}: keep_empty: false removed all {len(records)} images, for none has a usable box")
    return images


def count_empty_images(problems: Problems, records: Records, kept: Sequence[int]) -> None:
    """Counts the images that are left out because they have no objects."""
    for i in sorted(set(range(len(records))).difference(kept)):
        problems.add(EMPTY, records.path(i))


class Subset(DetectionDataset):
    """Some images of another data set, in the order of `indices`."""

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int], name: str) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.image_options, self.reads_files = dataset.image_options, dataset.reads_files
        self.name, self.classes, self.problems = name, dataset.classes, Problems()
        if not self.indices:
            raise ValueError(f"{name}: no image of the {len(dataset)} is in it")
        self.records = select_images(dataset.records, self.indices, name)

    def load_image(self, index: int) -> Image:
        return self.dataset.load_image(self.indices[index])


def named_classes(classes: Iterable[tuple[int, str]]) -> ClassMap:
    """A class map of (category id, name) pairs, in the order of the ids."""
    pairs = sorted(classes)
    return ClassMap(tuple(name for _, name in pairs), tuple(category for category, _ in pairs))


def similar_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that differ in case and spaces only, as after a slip."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(ignore_case_and_spaces(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
