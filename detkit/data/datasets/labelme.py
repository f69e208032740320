"""Folders with a LabelMe JSON file for each image (github.com/wkentaro/labelme), as X-AnyLabeling writes them, too."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import short
from detkit.data.datasets.entries import (
    Box,
    around,
    around_ellipse,
    describe_other,
    found_text,
    has_ignore_flag,
    is_true,
    objects_at,
    points_of,
    recognised,
    size_at,
    text_at,
)
from detkit.data.datasets.file_formats import read_json_file
from detkit.data.datasets.found import FoundData, Place, canonical_split, walk
from detkit.data.datasets.image_finder import ImageFinder, refuse_duplicates
from detkit.data.datasets.images import read_any_size
from detkit.data.datasets.problems import FROM_OUTLINE, JOINED, NO_BOX, OTHER_FILE, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree, Value

MARKS = re.compile(r'"shapes":\[(\]|.*"points":)|"imageData":"')
WITHOUT_BOX = ("point", "points", "line", "linestrip", "polyline")


@DATASETS.register()
class LabelMeDataset(DetectionDataset):
    """Boxes of a folder of LabelMe files; shapes with the flag `difficult` are ignore regions.

    A rectangle is a box; a polygon, circle, ellipse or mask gives the box around it; points and lines give none. Shapes
    of one label and group_id are parts of one object, as in LabelMe's own conversion to COCO. An image that is only
    inside of its JSON file (imageData) is read from there.

    Args:
        root: folder with the JSON files, in subfolders, too.
        images: folder of the images if it is not below `root`.
        join_groups: whether shapes of one label and group_id are one object.
        class_names: the classes and their order; null takes those of the shapes, in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    reads_files = True

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = recognised(place, ".json", MARKS)
        if not files:
            return None
        root = place.path if place.is_folder else place.path.parent
        tops = {file.relative_to(root).parts[0] for file in map(root.joinpath, place.with_suffix(".json"))}
        splits = {name: top for top in sorted(tops) if (root / top).is_dir() and (name := canonical_split(top))}
        # Files beside the folders of the splits would be in none of them.
        only = splits and all((root / top).is_dir() and top in splits.values() for top in tops)
        folders = {name: root / top for name, top in splits.items()} if only else {"all": root}
        nodes = {split: {"type": "LabelMeDataset", "root": str(folder)} for split, folder in folders.items()}
        return FoundData("LabelMe JSON", found_text(files, place, "a list of shapes"), nodes)

    def __init__(
        self,
        *,
        root: PathStr,
        images: PathStr | None = None,
        join_groups: bool = True,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        problems = Problems()
        records = read_folder(Path(root), ImageFinder(images or root, problems), join_groups, problems)
        self.finish_images(
            root, records, folder=images or root, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip
        # An image inside of a JSON file can't be opened by its path alone.
        self.reads_files = not any(is_json(record.path) for record in records)

    def image_content(self, index: int) -> bytes | None:
        path = self.records.path(index)
        return embedded_image(read_json_file(path), path) if is_json(path) else None


def is_json(path: str) -> bool:
    """Whether a record's image is inside of its JSON file."""
    return path.lower().endswith(".json")


def read_folder(root: Path, finder: ImageFinder, join_groups: bool, problems: Problems) -> list[ImageRecord]:
    """The record of each LabelMe file; ValueError or FileNotFoundError if there is none."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; root is the folder of the LabelMe files")
    records = []
    for file in (root / path for path in walk(root) if path.suffix.lower() == ".json"):
        content = read_json_file(str(file))
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            problems.add(OTHER_FILE, f"{file}: {describe_other(content)}")
            continue
        records.append(read_file(content, file, finder, join_groups, problems))
    if not records:
        raise ValueError(f"{root}: no JSON file with a list of shapes, as LabelMe writes it")
    refuse_duplicates(records, str(root))
    return records


def read_file(
    content: Tree, file: Path, finder: ImageFinder, join_groups: bool, problems: Problems
) -> ImageRecord:  # fmt: skip
    """The record of one file; ValueError that names file, shape and value."""
    path, size = image_of(content, file, finder)
    boxes: list[Box] = []
    names: list[str] = []
    ignore: list[bool] = []
    groups: dict[tuple[str, str], int] = {}
    for where, shape in objects_at(content, "shapes", str(file), "shape"):
        box = box_of(shape, where, problems)
        if box is None:
            continue
        name, group = text_at(shape, "label", where), shape.get("group_id")
        first = groups.setdefault((name, str(group)), len(boxes)) if join_groups and group is not None else len(boxes)
        if first < len(boxes):
            boxes[first] = around([(b[i], b[i + 1]) for b in (boxes[first], box) for i in (0, 2)])
            problems.add(JOINED, f"{where} ({name}, group {group})")
            continue
        boxes.append(box)
        names.append(name)
        ignore.append(is_true(shape.get("difficult")) or has_ignore_flag(shape.get("flags")))
    return ImageRecord(path=path, boxes=boxes, names=names, size=size, is_ignore=ignore, source=file.name)


def image_of(content: Tree, file: Path, finder: ImageFinder) -> tuple[str, tuple[int, int]]:
    """Path and (height, width) of a file's image; the path of the JSON file if the image is only inside of it.

    LabelMe turns an image upright before it is labelled, and states the size of the upright one.
    """
    name = content.get("imagePath")
    stated = size_at(content, "imageHeight", "imageWidth")
    path = finder.find(name, file.name, file.parent) if isinstance(name, str) and name else ""
    if path and os.path.isfile(path):
        return path, stated
    if content.get("imageData"):
        return str(file), read_any_size(embedded_image(content, str(file)), name=str(file))
    if not path:
        raise ValueError(f"{file}: imagePath is {short(name)}, not the name of an image")
    return path, stated


def embedded_image(content: Tree, where: str) -> bytes:
    """The bytes of the image inside of a file."""
    try:
        return base64.b64decode(content["imageData"])
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"{where}: imageData is no image in base64: {error}") from None


def box_of(shape: Tree, where: str, problems: Problems) -> Box | None:
    """The box of a shape; None, counted, for one without area. ValueError for a shape of an unknown kind."""
    kind = shape.get("shape_type", "polygon")
    points = points_of(shape.get("points"), where)
    if kind in WITHOUT_BOX:
        problems.add(NO_BOX, f"{where}: {kind}")
        return None
    if not isinstance(kind, str) or kind not in OUTLINES:
        raise ValueError(f"{where}: shape_type is {short(kind)}; known: {', '.join([*OUTLINES, *WITHOUT_BOX])}")
    if kind in FEWEST and len(points) < FEWEST[kind]:
        raise ValueError(f"{where}: {kind} with {len(points)} of {FEWEST[kind]} points")
    if kind != "rectangle":
        problems.add(FROM_OUTLINE, f"{where}: {kind}")
    return OUTLINES[kind](points)


def around_circle(points: Sequence[tuple[float, float]]) -> Box:
    """The box around a circle, given by its centre and a point on it."""
    (x, y), (px, py) = points[:2]
    radius = ((px - x) ** 2 + (py - y) ** 2) ** 0.5
    return around_ellipse(x, y, radius, radius)


FEWEST = {"rectangle": 2, "circle": 2, "mask": 2, "polygon": 3}
OUTLINES: dict[Value, Callable[[Sequence[tuple[float, float]]], Box]] = {
    "rectangle": around,
    "polygon": around,
    "rotation": around,
    "quadrilateral": around,
    "mask": around,
    "circle": around_circle,
}
