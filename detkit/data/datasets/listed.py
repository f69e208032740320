"""Lists of dicts, from a JSON or JSON-lines file or from Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_formats import BoxFormat
from detkit.data.datasets.coco_file import short
from detkit.data.datasets.entries import (
    describe_other,
    found_text,
    nodes_of,
    object_of,
    recognised,
    size_at,
)
from detkit.data.datasets.file_formats import describe_text, read_json_file, read_text
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import ImageFinder, refuse_duplicates
from detkit.data.datasets.images import to_rgb, upright_size
from detkit.data.datasets.list_entries import (
    BOX_KEYS,
    FILE_KEYS,
    OBJECT_KEYS,
    EntrySettings,
    file_of,
    objects_of,
    ordered_classes,
    plain,
    with_unique_ids,
)
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree

MARKS = re.compile(rf'^\[?\{{(?=.*"({"|".join(FILE_KEYS)})":").*"({"|".join((*OBJECT_KEYS, *BOX_KEYS))})":[\[{{]', re.S)
OTHERS = re.compile(
    r'^\{"(images|info|licenses|categories|version|shapes|flags|_via)|"(coordinates|shape_attributes|box2d|original_width)":'
)
"""Beginnings of files that belong to other readers."""
Picture = Image.Image | np.ndarray
Entry = Mapping[str, object]


@DATASETS.register()
class ListDataset(DetectionDataset):
    """A list of dicts, one for each image, as Detectron2's, torchvision's targets or metadata.jsonl of Hugging Face.

    The image is `file_name` (or filename, path, image); from Python also a picture in memory, as a PIL image or a uint8
    array (height, width, 3). Objects are in `annotations` (each with bbox, bbox_mode and category_id), in `objects`
    (lists bbox and category, boxes as x, y, width, height), or in `boxes` and `labels` (two corners). `iscrowd` objects
    are ignore regions.

    Args:
        annotations: JSON file with a list, or JSON lines.
        entries: the list itself, in Python.
        images: folder of the images; null takes the folder of the file.
        box_format: notation of boxes that have no bbox_mode; null takes the usual one of their key.
        relative: whether these boxes are in fractions of the image.
        names: classes of the labels 0, 1, 2 ... (in torchvision's targets 0 is the background); null calls classes by
            their number.
        class_names: the classes and their order; null takes `names`, or those in use in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    reads_files = True

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = [file for suffix in (".json", ".jsonl") for file in recognised(place, suffix, MARKS, OTHERS)]
        if not files:
            return None
        why = found_text(files, place, "a list of images with boxes")
        return FoundData("a list of dicts", why, nodes_of("ListDataset", files, place))

    def __init__(
        self,
        *,
        annotations: PathStr | None = None,
        entries: Sequence[Entry] | None = None,
        images: PathStr | None = None,
        box_format: BoxFormat | None = None,
        relative: bool = False,
        names: list[str] | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        if (annotations is None) == (entries is None):
            raise ValueError("give either annotations, a file, or entries, a list")
        name, problems = annotations or "a list of dicts", Problems()
        given = read_list(annotations) if annotations is not None else entries or ()
        if not given:
            raise ValueError(f"{name}: the list is empty")
        folder = images if images is not None else str(Path(annotations).parent) if annotations is not None else None
        options = EntrySettings(box_format, relative, names)
        finder = ImageFinder(folder, problems) if folder is not None else None
        self.pictures = {i: p for i, entry in enumerate(given) if (p := picture_of(entry, f"{name}[{i}]")) is not None}
        records = [
            read_entry(entry, f"{name}[{i}]", i, self.pictures.get(i), finder, options, problems)
            for i, entry in enumerate(given)
        ]
        refuse_duplicates([record for record in records if os.path.isfile(record.path)], name)
        self.reads_files = not self.pictures
        self.finish_images(
            name, with_unique_ids(records), folder=folder or os.path.dirname(records[0].path), problems=problems,
            bad_boxes=bad_boxes, keep_empty=keep_empty, unlisted=folder is not None and self.reads_files,
            classes=ordered_classes([n for r in records for n in r.names], options),
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip
        if annotations is None:
            self.roots = ()  # the user's own code names these paths

    def load_image(self, index: int) -> Image.Image:
        place = int(self.records.path(index).partition("#")[2] or -1) if self.pictures else -1
        if place not in self.pictures:
            return super().load_image(index)
        picture = self.pictures[place]
        return to_rgb(picture if isinstance(picture, Image.Image) else Image.fromarray(picture))


def read_list(path: str) -> list[Tree]:
    """The entries of a file; ValueError that names it and what it is instead."""
    if path.lower().endswith((".jsonl", ".ndjson")):
        return read_lines(path)
    content = read_json_file(path)
    if not isinstance(content, list):
        raise ValueError(f"{path}: not a list of images: it is {describe_other(content)}")
    return [object_of(value, f"{path}[{i}]") for i, value in enumerate(content)]


def read_lines(path: str) -> list[Tree]:
    """The entries of a file with one JSON object on each line."""
    text = read_text(path)
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                entries.append(object_of(json.loads(line), f"{path}:{number}"))
            except (json.JSONDecodeError, RecursionError) as error:
                known = describe_text(text) if not entries else None
                raise ValueError(f"{path}:{number}: not JSON: {f'the file is {known}' if known else error}") from None
    return entries


def picture_of(entry: Entry, where: str) -> Picture | None:
    """The picture in memory of an entry; ValueError for a kind that is unknown."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is {short(entry)}, not a dict")
    value = entry.get("image")
    if value is None or isinstance(value, (str, Path)):
        return None
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and (value.ndim == 2 or value.shape[2:] == (3,)):
        return value
    kind = f"{type(value).__name__} {getattr(value, 'dtype', '')} {tuple(getattr(value, 'shape', ()))}"
    raise ValueError(
        f"{where}: image is {kind}, not a file name, a PIL image or a uint8 array (height, width, 3). Of a tensor t of "
        "torchvision make torchvision.transforms.functional.to_pil_image(t)"
    )


def read_entry(
    entry: Entry, where: str, index: int, picture: Picture | None, finder: ImageFinder | None, options: EntrySettings,
    problems: Problems,
) -> ImageRecord:  # fmt: skip
    """The record of an entry."""
    values = plain(
        {key: str(v) if isinstance(v, Path) else v for key, v in entry.items() if key != "image" or picture is None}
    )
    if picture is not None:
        path = f"picture#{index}"
        size = picture.size[::-1] if isinstance(picture, Image.Image) else picture.shape[:2]
    else:
        name = file_of(values, where)
        path, size = finder.find(name, where) if finder is not None else name, size_at(values, "height", "width")
    needed = size if size[0] > 0 else upright_size(path)
    objects = objects_of(values, where, (int(needed[0]), int(needed[1])), options, problems)
    number = values.get("image_id")
    return ImageRecord(
        path=path,
        boxes=objects.boxes,
        names=objects.names,
        size=(int(size[0]), int(size[1])),
        is_ignore=objects.ignore,
        image_id=number if type(number) is int else None,
        area=objects.area,
        xywh=objects.xywh,
        source=f"entry {index} ({path})",
    )
