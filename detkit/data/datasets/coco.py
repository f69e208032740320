"""COCO JSON (cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from detkit.data.datasets.base import DetectionDataset, check_files, named_classes
from detkit.data.datasets.records import BadBoxes, RecordsBuilder, some
from detkit.files import PathStr
from detkit.registry import DATASETS


@DATASETS.register()
class CocoDataset(DetectionDataset):
    """Boxes of a COCO instances file; `iscrowd` boxes are ignore regions.

    annotations: JSON file. images: folder that `file_name` is relative to. class_names: the classes and
    their order, to be held against the file's; null takes the file's, by category id. bad_boxes: what
    to do with boxes without area, inverted, not finite or outside. keep_empty: whether to keep images
    without objects.
    """

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        class_names: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        content = read_json(annotations)
        for part in PARTS:
            check_entries(content, part, annotations)
        classes = named_classes(
            [(int(c["id"]), str(c["name"])) for c in content["categories"]], class_names, annotations
        )
        label = {category: k for k, category in enumerate(classes.ids)}
        by_image = group_by_image(content, label, annotations)
        builder = RecordsBuilder(annotations, bad_boxes)
        for image in content["images"]:
            items = by_image.get(image["id"], [])
            boxes = [[x, y, x + w, y + h] for x, y, w, h in (item["bbox"] for item in items)]
            builder.add(
                int(image["id"]),
                str(Path(images) / image["file_name"]),
                size_of(image),
                boxes,
                [label[item["category_id"]] for item in items],
                [item.get("iscrowd") in (1, "1") for item in items],
                [area_of(item) for item in items],
                source=str(image["file_name"]),
            )
        self.finish(annotations, classes, builder, keep_empty=keep_empty)
        check_files([self.records.path(i) for i in range(len(self))], annotations)


def read_json(path: str) -> dict[str, Any]:
    """A JSON object; errors name the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no annotation file {path}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; a COCO instances file is an object")
    return content


def check_entries(content: dict[str, Any], part: str, name: str) -> None:
    """Raises ValueError unless `content[part]` is a list whose entries have what a box needs."""
    entries = content.get(part)
    if not isinstance(entries, list):
        raise ValueError(f"{name}: no list {part!r}; this is not a COCO instances file")
    wrong = [f"{part}[{i}] {why}" for i, entry in enumerate(entries) if (why := entry_problem(entry, PARTS[part]))]
    if wrong:
        raise ValueError(f"{name}: {len(wrong)} of {len(entries)} entries of {part!r} are broken: {some(wrong)}")


def entry_problem(entry: Any, keys: dict[str, tuple[str, Callable[[Any], bool]]]) -> str | None:
    """What an entry lacks, or None."""
    if not isinstance(entry, dict):
        return f"is {entry!r}, not an object"
    for key, (wanted, good) in keys.items():
        if not good(entry.get(key)):
            which = f" (id {entry['id']!r})" if key != "id" and "id" in entry else ""
            return (
                f"{which} has {key} {entry[key]!r}, not {wanted}".strip() if key in entry else f"has no {key!r}{which}"
            )
    return None


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_id(value: Any) -> bool:
    """Whole numbers that fit int64; 3.0 is one, as some tools write it."""
    return is_number(value) and math.isfinite(value) and value == int(value) and abs(value) < 2**63


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


ID, TEXT = ("a whole number", is_id), ("a text", is_text)
PARTS: dict[str, dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "images": {"id": ID, "file_name": TEXT},
    "categories": {"id": ID, "name": TEXT},
    "annotations": {"image_id": ID, "category_id": ID, "bbox": ("a list of 4 numbers", is_box)},
}


def size_of(image: dict[str, Any]) -> tuple[int, int]:
    """(height, width) as stated, (-1, -1) where it is not."""
    height, width = image.get("height"), image.get("width")
    if is_number(height) and is_number(width) and height > 0 and width > 0:
        return int(height), int(width)
    return -1, -1


def area_of(item: dict[str, Any]) -> float:
    """The annotated area (of the mask, in COCO), the box's where there is none."""
    area = item.get("area")
    if is_number(area) and math.isfinite(area):
        return float(area)
    return float(item["bbox"][2] * item["bbox"][3])


def group_by_image(content: dict[str, Any], label: dict[int, int], name: str) -> dict[int, list[dict[str, Any]]]:
    """Annotations by image id; unknown images, categories and ids used twice are errors that name them."""
    annotations = content["annotations"]
    known = {image["id"] for image in content["images"]}
    strangers = sorted({a["image_id"] for a in annotations} - known)
    if strangers:
        raise ValueError(f"{name}: annotations of {len(strangers)} image ids that are not declared: {some(strangers)}")
    undeclared = Counter(a["category_id"] for a in annotations if a["category_id"] not in label)
    if undeclared:
        counts = [f"{category} ({count} boxes)" for category, count in sorted(undeclared.items())]
        raise ValueError(f"{name}: {len(undeclared)} category ids are not declared in `categories`: {some(counts)}")
    twice = [i for i, count in Counter(str(a["id"]) for a in annotations if "id" in a).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: {len(twice)} annotation ids are used twice: {some(sorted(twice))}")
    grouped: dict[int, list[dict[str, Any]]] = {}
    for a in annotations:
        grouped.setdefault(a["image_id"], []).append(a)
    return grouped
