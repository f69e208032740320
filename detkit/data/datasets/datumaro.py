"""JSON of Datumaro, which CVAT exports, too (annotations/SPLIT.json and images/)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import short
from detkit.data.datasets.entries import (
    Box,
    around,
    describe_other,
    found_export,
    has_ignore_flag,
    list_at,
    number_at,
    object_of,
    objects_at,
    points_of,
    size_at,
    text_at,
    turned_box,
)
from detkit.data.datasets.file_formats import read_json_file
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree, Value

MARKS = re.compile(r'"categories":\{"\w+":.*"(items|labels)":|^\{"dm_format_version":', re.S)
WITHOUT_BOX = ("label", "points", "polyline", "caption", "skeleton")


@DATASETS.register()
class DatumaroDataset(DetectionDataset):
    """Boxes of a JSON file of Datumaro; objects with the attribute `is_crowd` or `difficult` are ignore regions.

    Args:
        annotations: JSON file.
        images: folder of the images, with subfolders.
        class_names: the classes and their order; null takes the file's labels, in its order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        return found_export("DatumaroDataset", "Datumaro", place, MARKS, "which lists items")

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        problems = Problems()
        content = read_json_file(annotations)
        if not isinstance(content, dict) or not {"items", "categories"} <= content.keys():
            raise ValueError(f"{annotations}: not a file of Datumaro: it is {describe_other(content)}")
        labels = labels_of(content, annotations)
        finder = ImageFinder(images, problems)
        records = list(read_items(content, labels, annotations, finder, problems))
        check_records(records, annotations)
        self.finish_images(
            annotations, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            classes=labels, class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def labels_of(content: Tree, path: str) -> list[str]:
    """The class names, by label id."""
    categories = object_of(content["categories"], f"{path}: categories")
    label = object_of(categories.get("label") or {}, f"{path}: categories.label")
    names = [text_at(item, "name", where) for where, item in objects_at(label, "labels", path, "label")]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: a label has the name of another: {', '.join(sorted(names))[:200]}")
    return names


def read_items(
    content: Tree, labels: list[str], path: str, finder: ImageFinder, problems: Problems
) -> Iterator[ImageRecord]:  # fmt: skip
    """The record of each item."""
    for where, item in objects_at(content, "items", path, "item"):
        image = object_of(item.get("image") or {}, f"{where}: image")
        name = image.get("path") or item.get("id")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: no image.path and no id")
        boxes: list[Box] = []
        names: list[str] = []
        ignore: list[bool] = []
        for spot, entry in objects_at(item, "annotations", where, "object"):
            box = box_of(entry, spot, problems)
            if box is not None:
                boxes.append(box)
                names.append(label_of(entry, labels, spot))
                ignore.append(has_ignore_flag(entry.get("attributes")))
        size = size_of(image, where)
        file = find_image(name, where, finder)
        yield ImageRecord(path=file, boxes=boxes, names=names, size=size, is_ignore=ignore, source=name)


def find_image(name: str, where: str, finder: ImageFinder) -> str:
    """The image of an item, whose id lacks the suffix."""
    stem = name.replace("\\", "/").rpartition("/")[2]
    fitting = finder.by_stem.get(stem, [])
    return finder.find(name + fitting[0].removeprefix(stem) if len(fitting) == 1 else name, where)


def size_of(image: Tree, where: str) -> tuple[int, int]:
    """(height, width) as stated, or (-1, -1)."""
    size = list_at(image, "size", where)
    return size_at(dict(zip(("height", "width"), size, strict=False)), "height", "width")


def box_of(entry: Tree, where: str, problems: Problems) -> Box | None:
    """The box of an annotation; None, counted, for one without. ValueError for a kind that is unknown."""
    kind: Value = entry.get("type")
    if kind in WITHOUT_BOX:
        problems.add(NO_BOX, f"{where}: {kind}")
        return None
    if kind in ("polygon", "ellipse"):
        problems.add(FROM_OUTLINE, f"{where}: {kind}")
        return around(points_of(entry.get("points"), where))
    if kind != "bbox":
        hint = ": export the set as COCO, which has the boxes of masks" if kind == "mask" else ""
        raise ValueError(f"{where}: its type is {short(kind)}, not bbox or polygon{hint}")
    (x, y), (width, height) = two_points(entry.get("bbox"), where)
    attributes = object_of(entry.get("attributes") or {}, f"{where}: attributes")
    turn = number_at(attributes, "rotation", where) if attributes.get("rotation") else 0.0
    return turned_box([x, y, x + width, y + height], turn, where, problems)


def two_points(value: Value, where: str) -> list[tuple[float, float]]:
    points = points_of(value, where) if isinstance(value, list) else []
    if len(points) != 2:
        raise ValueError(f"{where}: bbox is {short(value)}, not x, y, width, height")
    return points


def label_of(entry: Tree, labels: list[str], where: str) -> str:
    """The class of an annotation."""
    number = entry.get("label_id")
    if type(number) is not int or not 0 <= number < len(labels):
        raise ValueError(f"{where}: label_id is {short(number)}, not one of the {len(labels)} labels")
    return labels[number]
