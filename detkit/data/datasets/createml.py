"""JSON of Apple's Create ML, as Roboflow writes it, too."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_formats import BoxFormat, to_corners
from detkit.data.datasets.entries import (
    describe_other,
    found_export,
    number_at,
    object_of,
    objects_at,
    text_at,
)
from detkit.data.datasets.file_formats import read_json_file
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree

MARKS = re.compile(r'^\[\{.*"coordinates":\{', re.S)
IMAGE_KEYS = ("image", "imagefilename", "filename")
OBJECT_KEYS = ("annotations", "annotation")


@DATASETS.register()
class CreateMlDataset(DetectionDataset):
    """Boxes of a JSON file of Create ML: a list of images with `annotations` of a label and coordinates.

    Args:
        annotations: JSON file.
        images: folder of the images, with subfolders.
        box_format: notation of the coordinates x, y, width, height: cxcywh where x and y are the centre, as Create ML
            expects by default, xywh where they are the top left corner.
        class_names: the classes and their order; null takes the labels in use, in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        notes = ("x and y are read as the centre of a box; box_format: xywh reads them as its top left corner",)
        return found_export("CreateMlDataset", "Create ML", place, MARKS, "a list of images with coordinates", notes)

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        box_format: BoxFormat = "cxcywh",
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        if box_format == "xyxy":
            raise ValueError(f"{annotations}: box_format must be cxcywh or xywh: coordinates have width and height")
        problems = Problems()
        finder = ImageFinder(images, problems)
        records = list(read_createml(annotations, box_format, finder))
        check_records(records, annotations)
        self.finish_images(
            annotations, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def read_createml(path: str, box_format: BoxFormat, finder: ImageFinder) -> Iterator[ImageRecord]:
    """The record of each image."""
    content = read_json_file(path)
    if not isinstance(content, list):
        raise ValueError(f"{path}: not a list of images, as Create ML has it: it is {describe_other(content)}")
    for i, value in enumerate(content, start=1):
        entry = object_of(value, f"{path}: image {i}")
        image_key = next((key for key in IMAGE_KEYS if key in entry), "image")
        name = text_at(entry, image_key, f"{path}: image {i}")
        key = next((key for key in OBJECT_KEYS if key in entry), None)
        if key is None:
            raise ValueError(f"{path}: {name}: no list 'annotations'; that of an image without objects is empty")
        items = list(objects_at(entry, key, f"{path}: {name}", "object"))
        boxes = [read_box(item, where, box_format) for where, item in items]
        names = [text_at(item, "label", where) for where, item in items]
        yield ImageRecord(path=finder.find(name, f"{path}: image {i}"), boxes=boxes, names=names, source=name)


def read_box(item: Tree, where: str, box_format: BoxFormat) -> list[float]:
    values = object_of(item.get("coordinates"), f"{where}: coordinates")
    return to_corners([number_at(values, key, where) for key in ("x", "y", "width", "height")], box_format)
