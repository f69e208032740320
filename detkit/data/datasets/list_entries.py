"""Images with boxes as dicts: Detectron2's, torchvision's targets, and the columns of Hugging Face's data sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from detkit.data.datasets.box_checks import corner_suspects
from detkit.data.datasets.box_formats import BoxFormat, to_corners
from detkit.data.datasets.coco_file import number_of, short
from detkit.data.datasets.entries import Box, around_turned, is_true, object_of
from detkit.data.datasets.problems import NUMBERED, SUSPECT, Problems
from detkit.data.datasets.records import ImageRecord
from detkit.utils.types import Tree, Value

FILE_KEYS = ("file_name", "filename", "image_path", "img_path", "filepath", "path", "file", "image")
BOX_KEYS = ("bbox", "boxes", "bboxes", "box")
LABEL_KEYS = (
    "labels", "category", "categories", "label", "category_id", "category_ids", "class", "classes", "class_labels",
    "gt_classes", "name", "names", "category_name",
)  # fmt: skip
CROWD_KEYS = ("iscrowd", "is_crowd", "crowd", "difficult", "ignore")
OBJECT_KEYS = ("annotations", "objects", "instances")
MODES: dict[object, tuple[BoxFormat, bool]] = {
    0: ("xyxy", False), 1: ("xywh", False), 2: ("xyxy", True), 3: ("xywh", True),
    "XYXY_ABS": ("xyxy", False), "XYWH_ABS": ("xywh", False), "XYXY_REL": ("xyxy", True), "XYWH_REL": ("xywh", True),
}  # fmt: skip
"""Detectron2's BoxMode -> notation, and whether it is in fractions of the image."""
TURNED_MODES = (4, "XYWHA_ABS")
Notation = Literal["annotations", "objects", "boxes"]


@dataclass(frozen=True)
class EntrySettings:
    """How entries are read.

    box_format: notation of boxes that state none; None for the usual one of their key. relative: whether they are in
    fractions of the image. names: classes of the labels 0, 1, 2 ...
    """

    box_format: BoxFormat | None = None
    relative: bool = False
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Objects:
    """The objects of an entry as columns of one length."""

    boxes: list[Box]
    names: list[str]
    ignore: list[bool]
    area: list[float] | None
    xywh: list[list[float]] | None


def plain(value: Value) -> Value:
    """Lists and numbers for the arrays and tensors in a value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def first_key(entry: Mapping[str, Value], keys: Sequence[str]) -> str | None:
    """The first of some keys that an entry has with a value."""
    return next((key for key in keys if entry.get(key) is not None), None)


def file_of(entry: Tree, where: str) -> str:
    """The image file that an entry names; ValueError without one."""
    for key in FILE_KEYS:
        value = entry.get(key)
        if isinstance(value, str) and value.strip():
            return value
    raise ValueError(f"{where}: it names no image; known keys: {', '.join(FILE_KEYS)}")


def objects_of(
    entry: Tree, where: str, size: tuple[int, int], options: EntrySettings, problems: Problems
) -> Objects:  # fmt: skip
    """The objects of an entry; ValueError for one that has none of the known keys, or not as many labels as boxes."""
    key = first_key(entry, OBJECT_KEYS)
    value = entry if key is None else entry[key]
    if isinstance(value, list):
        return objects_of_list(value, key or "", where, size, options, problems)
    columns = object_of(value, f"{where}: {key}")
    box_key, label_key = first_key(columns, BOX_KEYS), first_key(columns, LABEL_KEYS)
    if box_key is None:
        if columns.keys().isdisjoint(BOX_KEYS) and key is None:
            keys = ", ".join([*BOX_KEYS[:2], *OBJECT_KEYS])
            raise ValueError(
                f"{where}: it has no boxes; known keys: {keys}. An image without objects has an empty list"
            )
        return Objects([], [], [], None, None)
    rows = columns_to_rows(columns, box_key, label_key, where)
    return objects_of_list(rows, "boxes" if key is None else key, where, size, options, problems)


def columns_to_rows(columns: Tree, box_key: str, label_key: str | None, where: str) -> list[Tree]:
    """Lists of one length -> a dict for each object."""
    boxes = columns[box_key]
    if not isinstance(boxes, list):
        raise ValueError(f"{where}: {box_key} is {short(boxes)}, not a list of boxes")
    keys = [box_key, label_key, "area", "bbox_mode", *CROWD_KEYS]
    lists = {k: columns[k] for k in keys if k and isinstance(columns.get(k), list)}
    uneven = [f"{len(v)} {k}" for k, v in lists.items() if len(v) != len(boxes)]
    if uneven or (boxes and label_key is None):
        raise ValueError(f"{where}: {len(boxes)} {box_key}, but {', '.join(uneven) or 'no labels'}")
    shared = {"bbox_mode": columns["bbox_mode"]} if "bbox_mode" in columns and "bbox_mode" not in lists else {}
    return [{**shared, **{k: v[i] for k, v in lists.items()}} for i in range(len(boxes))]


def objects_of_list(
    values: list[Value], key: str, where: str, size: tuple[int, int], options: EntrySettings, problems: Problems
) -> Objects:  # fmt: skip
    """Columns of a list of objects."""
    boxes, names, ignore = [], [], []
    areas: list[float | None] = []
    given: list[list[float] | None] = []
    for i, value in enumerate(values, start=1):
        spot = f"{where}, object {i}"
        item = object_of(value, spot)
        box, xywh = corners_of(item, key, spot, size, options)
        boxes.append(box)
        given.append(xywh)
        names.append(name_of(item, spot, options, problems))
        ignore.append(any(is_true(item.get(k)) for k in CROWD_KEYS))
        areas.append(number_of(item.get("area")))
    area = [a for a in areas if a is not None]
    written = [x for x in given if x is not None]
    sides = written if len(written) == len(boxes) else None
    if sides and (beyond := corner_suspects(sides, size)):
        text = "x, y, width, height reach over the edge, which two corners would not: set box_format: xyxy"
        problems.add(SUSPECT, f"{where}, {sides[0]}: {text}", count=len(beyond))
    return Objects(boxes, names, ignore, area if len(area) == len(boxes) else None, sides)


def corners_of(
    item: Tree, key: str, where: str, size: tuple[int, int], options: EntrySettings
) -> tuple[Box, list[float] | None]:  # fmt: skip
    """Corners of an object's box in pixels, and x, y, width and height as written if they are so in pixels."""
    box_key = first_key(item, BOX_KEYS)
    values = item.get(box_key) if box_key else None
    numbers = [number_of(v) for v in values] if isinstance(values, list) else []
    box = [v for v in numbers if v is not None]
    mode = item.get("bbox_mode")
    if mode in TURNED_MODES and len(box) == len(numbers) == 5:
        return around_turned(to_corners(box[:4], "cxcywh"), -box[4]), None  # counter-clockwise in Detectron2
    if len(numbers) != 4 or len(box) != 4:
        raise ValueError(f"{where}: the box is {short(values)}, not a list of 4 numbers")
    notation, relative = notation_of(mode, key, where, options)
    if relative and size[0] <= 0:
        raise ValueError(f"{where}: the box is in fractions of an image whose size is unknown")
    if notation == "xywh" and not relative:
        return to_corners(box, notation), box
    return to_corners(box, notation, size if relative else None), None


def notation_of(mode: Value, key: str, where: str, options: EntrySettings) -> tuple[BoxFormat, bool]:
    """Notation of a box, and whether it is in fractions of the image."""
    if mode is not None:
        mode = mode.split(".")[-1] if isinstance(mode, str) else mode
        if not isinstance(mode, (int, str)) or mode not in MODES:
            raise ValueError(f"{where}: bbox_mode is {short(mode)}; known: {', '.join(map(str, MODES))}")
        return MODES[mode]
    if options.box_format is not None:
        return options.box_format, options.relative
    if key == "annotations":
        raise ValueError(f"{where}: it has no bbox_mode: set box_format to xyxy, xywh or cxcywh")
    return ("xyxy" if key == "boxes" else "xywh"), options.relative


def name_of(item: Tree, where: str, options: EntrySettings, problems: Problems) -> str:
    """The class of an object: a name, or a number that `names` or the number itself gives a name."""
    key = first_key(item, LABEL_KEYS)
    value = item.get(key) if key else None
    if isinstance(value, str) and value.strip():
        return value.strip()
    number = number_of(value)
    if number is None or isinstance(value, str) or not number.is_integer():
        raise ValueError(f"{where}: {f'{key} is {short(value)}, not a class' if key else 'it has no class'}")
    if options.names is None:
        problems.add(NUMBERED, f"{where}: {key}={int(number)}")
        return str(int(number))
    if not 0 <= number < len(options.names):
        raise ValueError(f"{where}: {key} is {int(number)}, but there are names for 0 to {len(options.names) - 1}")
    return options.names[int(number)]


def ordered_classes(used: Sequence[str], options: EntrySettings) -> list[str]:
    """Class names: those given for numbers, then the others; numbers by value, names in alphabetical order."""
    names = list(dict.fromkeys(options.names or ()))
    rest = set(used).difference(names)
    return names + sorted(rest, key=lambda n: (0, int(n), n) if re.fullmatch(r"-?\d{1,18}", n) else (1, 0, n))


def with_unique_ids(records: list[ImageRecord]) -> list[ImageRecord]:
    """The records with their ids if every one has another, else without."""
    ids = {record.image_id for record in records}
    if None in ids or len(ids) < len(records):
        return [replace(record, image_id=None) for record in records]
    return records


def label_names(features: Tree, objects: str | None) -> list[str] | None:
    """The names that features of `datasets` declare for the numbers of the classes (`ClassLabel`); None for none.

    Only the column that `objects_of` reads classes from counts. objects: column of the objects; None finds it.
    """
    key = objects or first_key(features, OBJECT_KEYS)
    columns = without_lists(features.get(key)) if key else features
    label = first_key(columns, LABEL_KEYS) if isinstance(columns, Mapping) else None
    return class_label_names(columns[label]) if label else None


def class_label_names(feature: Value) -> list[str] | None:
    """The names of a `ClassLabel` or of one in lists, as an object or in its JSON form; None for another feature."""
    feature = without_lists(feature)
    if isinstance(feature, Mapping):
        names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    else:
        names = feature.names if type(feature).__name__ == "ClassLabel" else None
    return None if names is None else [str(name) for name in names]


def without_lists(feature: Value) -> Value:
    """The feature of the items of a list, however deep; any other feature itself."""
    if isinstance(feature, list):
        inner = feature[0] if feature else None
    elif isinstance(feature, Mapping):
        inner = feature.get("feature") if "_type" in feature else None
    else:
        inner = getattr(feature, "feature", None)
    return feature if inner is None else without_lists(inner)
