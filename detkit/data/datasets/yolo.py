"""YOLO data sets: a text file of class numbers and boxes, in fractions of the image, for each image."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.file_formats import read_text
from detkit.data.datasets.found import FoundData, Place, walk
from detkit.data.datasets.image_files import check_files, image_suffixes
from detkit.data.datasets.images import upright_size
from detkit.data.datasets.problems import DROPPED, MERGED, Kind, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.data.datasets.yolo_data import (
    YoloData,
    data_file_below,
    data_files,
    is_data_yaml,
    locate,
    names_in,
    open_data,
)
from detkit.data.datasets.yolo_file import LARGEST_FRACTION, Shape, check_classes, check_pose, read_labels
from detkit.data.datasets.yolo_labels import LabelFiles, label_places, looks_like_labels
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import plural, printable, shorten_list

log = logging.getLogger("detkit")
OTHER_FORMATS = (".json", ".jsonl", ".xml", ".csv", ".tsv", ".parquet", ".arrow", ".tar")
"""Suffixes of other formats. Where none is there, labels in pixels count as YOLO, whose reader says what is wrong."""
DECIMALS = 6
"""Of a coordinate in pixels, so that a box in whole pixels is one again after it was divided by the image's size."""
NO_LABELS = Kind("[images have|image has] no label file, which counts as no objects", quiet=True)
ANNOTATED = Kind(
    "[images have|image has] no label file, which counts as no objects, but [XML or JSON files|an XML or JSON file] "
    "with objects beside [them|it]: remove [these images|this image], or convert [their|its] labels to YOLO"
)
NO_IMAGE = Kind("label [files have|file has] no image")
OTHER_CASE = Kind(
    "label [files are|file is] not read, as upper and lower case count: rename [them|it] to labels/NAME.txt, with the "
    "image's NAME"
)
SHARED = Kind("[images share|image shares] the label file of another image, as a.jpg and a.png do")
ELSEWHERE = Kind("[paths lead|path leads] elsewhere on this machine and [are|is] found by [their|its] end", quiet=True)


@DATASETS.register()
class YoloDataset(DetectionDataset):
    """Boxes of a YOLO data set: boxes, polygons and oriented boxes, all as upright boxes.

    The labels of images/a.jpg are in labels/a.txt, or beside the image; an image without a label file has no objects.

    Args:
        data: data.yaml, obj.data of Darknet, or a folder with one of them, or one with classes.txt.
        split: train, val or test; all for a folder without splits.
        names: class names by number, instead of those of the data.
        class_names: the classes and their order; null takes the data's, by number.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        why = evidence(place)
        if why is None:
            return None
        try:
            data = open_data(place.path)
            splits, notes = list(data.splits), (*data.notes, *data.others)
        except (ValueError, OSError) as error:  # the reader says so when it is asked for a split
            splits, notes = ["train", "val"], (str(error),)
        nodes = {split: {"type": cls.__name__, "data": str(place.path), "split": split} for split in splits}
        return FoundData("YOLO", why, nodes, notes)

    def __init__(
        self,
        *,
        data: PathStr,
        split: str,
        names: list[str] | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        opened, name, problems = open_data(data, names), f"{data} ({split})", Problems()
        images, places = images_of(opened, split, problems)
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(image)) for image in images])
        check_files(images, name, folder)
        labels = LabelFiles(images)
        self.finish_images(
            name,
            read_images(labels, opened, name, problems, folders=all(place.is_dir() for place in places)),
            folder=folder,
            classes=list(opened.names.values()),
            problems=problems,
            bad_boxes=bad_boxes,
            keep_empty=keep_empty,
            class_names=class_names,
            class_map=class_map,
            ignore_classes=ignore_classes,
            unlisted=False,
        )
        # What data.yaml names is chosen, as in a config; a list of images is of others' making.
        folders = [place if place.is_dir() else place.parent for place in (Path(opened.source), *places)]
        self.roots = tuple(map(str, dict.fromkeys([opened.root, *folders])))


def evidence(place: Place) -> str | None:
    """What shows that a place is a YOLO set, in words; None if nothing does."""
    if not place.is_folder:
        suffix = place.path.suffix.lower()
        if suffix in (".yaml", ".yml") and place.path.is_file() and is_data_yaml(place.path):
            return "its keys names and train or val"
        return "the suffix .data" if suffix == ".data" else None
    if described := data_files(place.path):
        return described[0].name
    texts, images = place.with_suffix(".txt"), place.with_suffix(*image_suffixes())
    if not texts or not images:
        return None
    stems = {image.stem for image in images}
    labels = [text for text in texts if text.stem in stems][:20]
    other = any(suffix in place.suffixes for suffix in OTHER_FORMATS)
    if not any(looks_like_labels(place.path / label, LARGEST_FRACTION if other else math.inf) for label in labels):
        return None
    try:
        names_file = names_in(place.path, list(place.files))
        described_below = data_file_below(place.path, place.files) if names_file is None else None
    except (ValueError, OSError):  # several, or one that can't be read, as the reader says
        names_file = described_below = None
    if names_file is not None:
        return f"{names_file.relative_to(place.path)} and label files"
    if described_below is not None:
        return printable(described_below.relative_to(place.path))
    return f"label files such as {labels[0]}"


def images_of(data: YoloData, split: str, problems: Problems) -> tuple[list[str], list[Path]]:
    """Image files of a split, each once, and the folders and lists that they come from; errors name the entry."""
    if split not in data.splits:
        raise ValueError(f"{data.source}: no split {split!r}, only {shorten_list(list(data.splits))}")
    notes = list(data.notes)
    images: list[str] = []
    places: list[Path] = []
    for entry in data.splits[split]:
        place = locate(entry, data.root, notes, Path(data.source).parent)
        if place is None:
            raise FileNotFoundError(
                f"{data.source}: {split}: no folder or list {printable(entry)}, neither as it is nor in {data.root}. "
                "Correct the path, or remove the split"
            )
        images += images_below(place) if place.is_dir() else listed_images(place, data.root, notes)
        places.append(place)
    for note in notes:
        problems.add(ELSEWHERE, note)
    if not images:
        entries = shorten_list([printable(entry) for entry in data.splits[split]])
        raise ValueError(
            f"{data.source}: {split}: the split has no images: {entries} in {data.root} holds none. "
            "Add some, or remove the split"
        )
    seen = dict.fromkeys(images)
    if len(seen) < len(images):
        problems.add(MERGED, *repeated(images), count=len(images) - len(seen))
    return list(seen), places


def repeated(items: Sequence[str]) -> list[str]:
    """The items that are there before."""
    first = {item: i for i, item in reversed(list(enumerate(items)))}
    return [item for i, item in enumerate(items) if first[item] != i]


def images_below(folder: Path) -> list[str]:
    """Image files in a folder and those below it."""
    suffixes = image_suffixes()
    return [str(folder / file) for file in walk(folder) if file.suffix.lower() in suffixes]


def listed_images(path: Path, root: Path, notes: list[str]) -> list[str]:
    """The images that a text file lists; those that are not there keep their name, as errors show it."""
    if path.suffix.lower() in image_suffixes():
        raise ValueError(f"{path} is one image; a split is a folder or a list of images (.txt)")
    lines = [line.strip() for line in read_text(path).splitlines()]
    if (zero := next((i for i, line in enumerate(lines, start=1) if "\0" in line), None)) is not None:
        raise ValueError(f"{path}:{zero}: the line has a zero byte, so the file is not a list of images")
    return [str(locate(line, path.parent, notes, root) or path.parent / line) for line in lines if line]


def read_images(
    labels: LabelFiles, data: YoloData, name: str, problems: Problems, *, folders: bool
) -> Iterator[ImageRecord]:
    """The record of each image; ValueError that lists what is wrong with label files."""
    shapes, wrong = read_all(labels, data.keypoints, problems)
    if wrong:
        count = plural(len(wrong), "line of a label file is", "lines of label files are")
        raise ValueError(f"{name}: {count} broken: {shorten_list(wrong)}. Correct these lines, or remove them")
    check_classes(shapes, dict(data.names), name)
    check_copies(labels, shapes, name)
    if not data.keypoints:
        check_pose(shapes, name)
    count_labels(labels, data.root, name, problems, folders=folders)
    for image, path in labels.of_image.items():
        yield to_record(image, path, shapes[path] if path else [], data, problems)


def check_copies(labels: LabelFiles, shapes: Mapping[str, list[Shape]], name: str) -> None:
    """Raises ValueError for an image file that has several paths, as by links, with other objects for each."""
    images = list(labels.of_image)
    wrong = []
    for same in labels.folders.duplicates(images).values():
        paths = [labels.of_image[images[i]] for i in same]
        objects = {tuple(sorted((s.number, tuple(s.box)) for s in (shapes[path] if path else []))) for path in paths}
        if len(objects) > 1:
            wrong.append(" and ".join(printable(images[i]) for i in same[:3]))
    if wrong:
        count = plural(len(wrong), "image file has", "image files have")
        raise ValueError(
            f"{name}: {count} several paths with other objects for each, so the objects of one would be background in "
            f"the other: {shorten_list(wrong)}. Remove all but one of them, or give them the same labels"
        )


def read_all(labels: LabelFiles, keypoints: bool, problems: Problems) -> tuple[dict[str, list[Shape]], list[str]]:
    """The objects of every label file, and what is wrong with lines."""
    shapes: dict[str, list[Shape]] = {}
    wrong: list[str] = []
    for path in labels.of_image.values():
        if path is not None and path not in shapes:
            shapes[path], more = read_labels(Path(path), problems, keypoints)
            wrong += more
    return shapes, wrong


def count_labels(labels: LabelFiles, root: Path, name: str, problems: Problems, *, folders: bool) -> None:
    """Counts images without labels, label files without image, and those of several images.

    ValueError if no image at all has a label file. root: where such files may be instead.
    """
    without = [image for image, path in labels.of_image.items() if path is None]
    cased = labels.in_another_case()
    if len(without) == len(labels.of_image):
        places = " or ".join(printable(place) for place in label_places(without[0]))
        count = plural(len(without), "image")
        hint = far_labels(without[0], root)
        if cased:
            files = shorten_list([printable(path) for path in cased], 3)
            hint = f". Rename {files}: upper and lower case must be as there"
        raise ValueError(f"{name}: none of the {count} has a label file; that of {without[0]} would be {places}{hint}")
    annotated = [image for image in without if labels.is_annotated(image)]
    for kind, examples in (
        (NO_LABELS, [image for image in without if image not in set(annotated)]),
        (ANNOTATED, annotated),
        (SHARED, repeated([path for path in labels.of_image.values() if path])),
        (OTHER_CASE, cased),
        (NO_IMAGE, [path for path in labels.unused() if path not in cased] if folders else []),
    ):
        if examples:
            problems.add(kind, *examples, count=len(examples))


def far_labels(image: str, root: Path) -> str:
    """Where the labels of an image may be instead, as a sentence; empty if no file below `root` has their name."""
    name = f"{Path(image).stem}.txt"
    far = next((root / file for file in walk(root) if file.name == name and looks_like_labels(root / file)), None)
    if far is None:
        return ""
    return f". There is {printable(far)}: put it there, or name the folder of the images `images`, beside `labels`"


def to_record(image: str, path: str | None, shapes: list[Shape], data: YoloData, problems: Problems) -> ImageRecord:
    """The record of one image. Boxes become pixels by the size in the image's header, as it is after EXIF rotation."""
    height, width = upright_size(image) if shapes else (-1, -1)
    if shapes and height < 0:
        problems.add(DROPPED, f"{path}: {image} can't be read, so its size is unknown", count=len(shapes))
        shapes = []
    scale = (width, height, width, height)
    boxes = [[round(v * side, DECIMALS) for v, side in zip(shape.box, scale, strict=True)] for shape in shapes]
    return ImageRecord(
        path=image,
        boxes=boxes,
        names=[data.names[shape.number] for shape in shapes],
        size=(height, width),
        source=path or image,
    )
