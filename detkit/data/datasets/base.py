"""The contract of a data set."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from PIL.Image import Image

from detkit.data.datasets.classes import ClassOptions, adopt_classes, apply_options, check_known, similar_names
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import Folders, check_files, check_inside
from detkit.data.datasets.images import (
    ImageOptions,
    Size,
    Target,
    read_scaled,
    read_size,
)
from detkit.data.datasets.problems import EMPTY, NO_SCORE, UNLISTED, Problems
from detkit.data.datasets.records import (
    BadBoxes,
    ImageRecord,
    Records,
    RecordsBuilder,
    count_differences,
    image_of_rows,
    select_images,
)
from detkit.data.seeding import Layout
from detkit.structures import ClassMap
from detkit.utils.console import nearest, plural, shorten_list
from detkit.utils.types import Floats, Scalar

__all__ = ["DetectionDataset", "Problems", "Records", "RecordsBuilder", "Subset", "check_files", "named_classes"]
log = logging.getLogger("detkit")


class DetectionDataset:
    """Images with boxes.

    A subclass's constructor calls `finish` with its classes and records.

    classes: names and category ids. records: annotations as flat arrays. problems: what reader and filters
    dropped, changed or left out, by kind, with file and box. image_options: how images are read, `data.images` of
    the config. left_out: images that could not be used, each with the reason. reads_files: whether the images are the
    files that records name; false for a subclass with its own `load_image` or `image_content`, unless it sets
    `reads_files = True`. layout: which images lie near each other, if the order of training should depend on it.
    roots: folders that paths in annotations must not lead out of, unless `data.images.outside` allows it.
    scores: of the boxes of `records.truth` (M,), if they are detections.
    """

    name: str
    classes: ClassMap
    records: Records
    problems: Problems
    keep_empty: bool = True
    image_options = ImageOptions()
    left_out: Mapping[str, str] = MappingProxyType({})
    reads_files = True
    layout: Layout | None = None
    roots: tuple[str, ...] = ()
    scores: Floats | None = None

    def __init_subclass__(cls, **more: object) -> None:
        super().__init_subclass__(**more)
        if {"load_image", "image_content"} & vars(cls).keys() and "reads_files" not in vars(cls):
            cls.reads_files = False

    def __len__(self) -> int:
        return len(self.records)

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        """The splits of this class's format at a place, for `type: auto`; None if it is not there.

        Looks at names and at the beginnings of a few files; a file that looks right and can't be read counts as found,
        so that the reader tells what is wrong with it.
        """
        return None

    def load_image(self, index: int) -> Image:
        """An image as 8-bit RGB, upright."""
        return read_scaled(self.image_source(index), self.records.path(index), self.image_options)[0]

    def image_content(self, index: int) -> bytes | None:
        """The bytes of an image's file, if it is not a file of its own (as in a shard); else None."""
        return None

    def image_version(self, index: int) -> str | None:
        """A text that changes when the image does; None where that is not known, so that nothing may keep it."""
        if not self.reads_files:
            return None
        state = os.stat(self.records.path(index))
        return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"

    def origin(self, index: int) -> tuple[DetectionDataset, int]:
        """The data set that holds an image, and its index there: another one if this one is made of others."""
        return self, index

    def load_scaled(self, index: int, target: Target) -> tuple[Image, Size]:
        """An image as `load_image` gives it, or smaller, and its (height, width) in full.

        It is smaller only with `data.images.scaled_decoding`, and never below `target`; see `read_scaled`.
        """
        holder, i = self.origin(index)
        if not self.image_options.scaled_decoding or type(holder).load_image is not DetectionDataset.load_image:
            image = self.load_image(index)
            return image, (image.height, image.width)
        return read_scaled(self.image_source(index), holder.records.path(i), self.image_options, target)

    def image_source(self, index: int) -> str | bytes:
        """What an image is decoded from: the path of its file, or the bytes of one, as in a shard."""
        holder, i = self.origin(index)
        content = holder.image_content(i)
        return holder._image_path(i) if content is None else content

    def is_drawn(self, index: int) -> bool:
        """Whether an image is made by a `load_image` of its data set, and no file that could be decoded."""
        holder, _ = self.origin(index)
        return not holder.reads_files and type(holder).load_image is not DetectionDataset.load_image

    def image_size(self, index: int) -> Size:
        """(height, width) of an upright image, from the header of its file."""
        if self.is_drawn(index):
            return self.load_image(index).size[::-1]
        return read_size(self.image_source(index), self.image_options, name=self.records.path(index))

    def _image_path(self, index: int) -> str:
        """The path of an image; ValueError if an annotation leads to it out of the data's folders."""
        path = self.records.path(index)
        if not self.image_options.outside:
            check_inside([path], self.roots)
        return path

    def unread(self, indices: Sequence[int]) -> Problems:
        """What the files have of some images that no record holds, as masks, counted by kind. Reads files again."""
        return Problems()

    def image_metadata(self) -> list[Mapping[str, Scalar]]:
        """What the files say of each image beside its name and size, by column. Reads files again."""
        return [{}] * len(self)

    def check_paths(self) -> None:
        """Raises ValueError that names the images which lie outside of the data's folders."""
        if not self.image_options.outside and self.reads_files:
            check_inside([self.records.path(i) for i in range(len(self))], self.roots, self.name)

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
                f"the image has {size[1]}x{size[0]} pixels (after EXIF rotation), but its annotation says "
                f"{width}x{height}: the boxes are unreliable. Correct one of them, or remove the image from the split"
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
        self.classes, self.records = apply_options(options, classes, self.records, name, self.problems)
        if not keep_empty:
            kept = find_images_with_objects(self.records, name)
            count_empty_images(self.problems, self.records, kept)
            self.records = select_images(self.records, kept, name)
        truth = self.records.truth
        # No area range of the evaluation contains them.
        for row in np.flatnonzero((truth.area < 0) & ~truth.is_ignore).tolist():
            image, number = self.records.locate(row)
            text = f"{self.records.file_name(image)}, box {number}: area={truth.area[row]:g}"
            self.problems.add(NO_SCORE, text)
        self.problems.report(name)
        if self.records.is_ignore.all():
            log.warning("%s: no image has a usable box: nothing to train or evaluate on", name)
        for alike in similar_names(self.classes.names):
            text = "differ only in case or spaces; they count as different classes"
            log.warning("%s: the classes %s %s", name, shorten_list(alike), text)

    def finish_images(
        self,
        name: str,
        images: Iterable[ImageRecord],
        *,
        folder: str,
        classes: ClassMap | Sequence[str] | None = None,
        problems: Problems | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        unlisted: bool = True,
        annotated: Sequence[str] = (),
    ) -> None:
        """`finish` for a reader that makes an `ImageRecord` of every image; checks that the files exist.

        folder: of the images. classes: names in the order of their category ids from 0, or with their ids; None takes
        the names of the objects in alphabetical order. problems: where the reader counts. unlisted: whether image
        files of the folders that no record names are counted, but for those in `annotated`.
        Images get the ids 1, 2, 3 ... where a record has none. ValueError for an object of an undeclared class.
        """
        builder, self.roots = RecordsBuilder(name, bad_boxes), (folder,)
        if problems is not None:
            builder.problems = problems
        if classes is None:
            images = list(images)
            classes = sorted({n for record in images for n in record.names})
        declared = classes if isinstance(classes, ClassMap) else named_classes(enumerate(classes))
        label = {class_name: k for k, class_name in enumerate(declared.names)}
        paths = list(annotated)
        for i, record in enumerate(images, start=1):
            paths.append(record.path)
            builder.add(
                i if record.image_id is None else record.image_id,
                record.path,
                record.size,
                record.boxes,
                [label_of(n, label, record.path) for n in record.names],
                record.is_ignore or [False] * len(record.names),
                record.area,
                source=record.source or None,
                xywh=record.xywh,
                ids=record.ids,
            )
        folders = Folders()
        for path in folders.unlisted_images(folder, paths) if unlisted else ():
            builder.problems.add(UNLISTED, path)
        self.finish(
            name, declared, builder, keep_empty=keep_empty, class_names=class_names, class_map=class_map,
            ignore_classes=ignore_classes,
        )  # fmt: skip
        if self.reads_files:
            check_files([self.records.path(i) for i in range(len(self))], name, folder, folders)

    def choose_classes(self, options: ClassOptions) -> None:
        """Selects, merges, renames and ignores classes by name, and reports what that leaves out."""
        problems = Problems()
        self.classes, self.records = apply_options(options, self.classes, self.records, self.name, problems)
        problems.report(self.name)
        self.problems.merge(problems)

    def use_classes(self, classes: ClassMap, owner: str = "the training data") -> None:
        """Takes over another split's classes and their order, by name; category ids stay this split's own.

        ValueError if there are objects of a class that `classes` lacks. owner: whose classes they are.
        """
        if self.classes.names != classes.names:
            self.classes, self.records = adopt_classes(classes, self.classes, self.records, self.name, owner)

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


def label_of(name: str, label: Mapping[str, int], path: str) -> int:
    """The number of a class; ValueError if it is not among those that the data declares."""
    if name not in label:
        raise ValueError(f"{path}: the class {name!r} is not declared{nearest(name, list(label))}")
    return label[name]


def check_labels(records: Records, classes: ClassMap, name: str) -> None:
    """Raises ValueError that names the first image with a label that no class has."""
    labels = records.truth.labels
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        image, _ = records.locate(int(wrong[0]))
        raise ValueError(
            f"{name}: {records.path(image)} has the label {int(labels[wrong[0]])}, but there are {len(classes)} "
            f"classes: labels must be between 0 and {len(classes) - 1}"
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


def _images_of_objects(records: Records) -> list[int]:
    images: list[int] = np.unique(image_of_rows(records.ends)[~records.is_ignore]).tolist()
    return images


def find_images_with_objects(records: Records, name: str) -> list[int]:
    """Indices of the images with at least one object; ValueError if none has."""
    images = _images_of_objects(records)
    if not images:
        raise ValueError(f"{name}: keep_empty: false removed all {len(records)} images, because none has a usable box")
    return images


def count_empty_images(problems: Problems, records: Records, kept: Sequence[int]) -> None:
    """Counts the images that are left out because they have no objects."""
    for i in sorted(set(range(len(records))).difference(kept)):
        problems.add(EMPTY, records.path(i))


class Subset(DetectionDataset):
    """Some images of another data set, in the order of `indices`."""

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int], name: str) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.image_options, self.reads_files, self.roots = dataset.image_options, dataset.reads_files, dataset.roots
        self.name, self.classes, self.problems = name, dataset.classes, Problems()
        if not self.indices:
            raise ValueError(f"{name}: the subset has none of the {len(dataset)} images")
        self.records = select_images(dataset.records, self.indices, name)
        if dataset.layout is not None:
            self.layout = replace(dataset.layout, group=dataset.layout.group[self.indices])

    def load_image(self, index: int) -> Image:
        return with_images(self.dataset, self.image_options).load_image(self.indices[index])

    def origin(self, index: int) -> tuple[DetectionDataset, int]:
        return with_images(self.dataset, self.image_options).origin(self.indices[index])

    def unread(self, indices: Sequence[int]) -> Problems:
        return self.dataset.unread([self.indices[i] for i in indices])


def with_images(part: DetectionDataset, options: ImageOptions) -> DetectionDataset:
    """A data set that reads its images with options; itself if it does already."""
    if part.image_options == options:
        return part
    part = copy.copy(part)
    part.image_options = options
    return part


def named_classes(classes: Iterable[tuple[int, str]]) -> ClassMap:
    """A class map of (category id, name) pairs, in the order of the ids."""
    pairs = sorted(classes)
    return ClassMap(tuple(name for _, name in pairs), tuple(category for category, _ in pairs))
