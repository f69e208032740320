"""Folders with a LabelMe JSON file for each image (github.com/wkentaro/labelme), as X-AnyLabeling writes them, too."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from detkit.data.datasets.found import FoundData, Place, canonical_split, split_folder, walk
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.image_finder import ImageFinder, refuse_duplicates
from detkit.data.datasets.images import read_any_size
from detkit.data.datasets.problems import FROM_OUTLINE, JOINED, NO_BOX, OTHER_FILE, Kind, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree, Value

MARKS = re.compile(r'"shapes":\[(\]|.*"points":)|"imageData":"')
NO_GROUPS = Kind("[shapes have|shape has] the group_id 0, as all others, which counts as no group", quiet=True)
WITHOUT_BOX = ("point", "points", "line", "linestrip", "polyline")


@DATASETS.register()
class LabelMeDataset(DetectionDataset):
    """Boxes of a folder of LabelMe files; shapes with the flag `difficult` are ignore regions.

    A rectangle is a box; a polygon, circle, ellipse or mask gives the box around it; points and lines give none. Shapes
    of one label and group_id are parts of one object, as in LabelMe's own conversion to COCO, unless all shapes of the
    folder have the group_id 0. An image that is only inside of its JSON file (imageData) is read from there.

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
        files = recognised(place, ".json", MARKS, every=False)
        if not files:
            return None
        nodes = {split: {"type": "LabelMeDataset", **folders} for split, folders in split_folders(place).items()}
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


def split_folders(place: Place) -> dict[str, dict[str, str]]:
    """Split -> its `root`, and `images` if they lie elsewhere; "all" unless every file is in the folder of a split."""
    root = place.path if place.is_folder else place.path.parent
    tops = {split_folder(file) for file in place.with_suffix(".json")}
    splits = {canonical_split(top.name) or top.name: top for top in tops if top is not None}
    if not splits or len(splits) < len(tops):
        return {"all": {"root": str(root)}}
    images = {split_folder(file) for file in place.with_suffix(*image_suffixes())}
    folders = {}
    for split, top in splits.items():
        same = [folder for folder in images if folder is not None and canonical_split(folder.name) == split]
        elsewhere = {"images": str(root / same[0])} if len(same) == 1 and same[0] != top else {}
        folders[split] = {"root": str(root / top), **elsewhere}
    return folders


@dataclass
class LabelMeShape:
    """A shape with a box. where: in words; group: its group_id."""

    where: str
    name: str
    box: Box
    group: Value
    is_ignore: bool


@dataclass
class LabelMeFile:
    """One file: its name, its image and the (height, width) of that, its shapes."""

    name: str
    path: str
    size: tuple[int, int]
    shapes: list[LabelMeShape]


def read_folder(root: Path, finder: ImageFinder, join_groups: bool, problems: Problems) -> list[ImageRecord]:
    """The record of each LabelMe file; ValueError or FileNotFoundError if there is none."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; root is the folder of the LabelMe files")
    files = []
    for file in (root / path for path in walk(root) if path.suffix.lower() == ".json"):
        content = read_json_file(str(file))
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            problems.add(OTHER_FILE, f"{file}: {describe_other(content)}")
            continue
        files.append(read_file(content, file, finder, problems))
    if not files:
        raise ValueError(f"{root}: no JSON file with a list of shapes, as LabelMe writes it")
    shapes = [shape for file in files for shape in file.shapes]
    if join_groups and shapes and all(shape.group in (0, "0") for shape in shapes):
        join_groups = False
        problems.add(NO_GROUPS, str(root), count=len(shapes))
    records = [to_record(file, join_groups, problems) for file in files]
    refuse_duplicates(records, str(root))
    return records


def read_file(content: Tree, file: Path, finder: ImageFinder, problems: Problems) -> LabelMeFile:
    """One file; ValueError that names file, shape and value."""
    path, size = image_of(content, file, finder)
    shapes = []
    for where, shape in objects_at(content, "shapes", str(file), "shape"):
        box = box_of(shape, where, problems)
        if box is not None:
            is_ignore = is_true(shape.get("difficult")) or has_ignore_flag(shape.get("flags"))
            shapes.append(LabelMeShape(where, text_at(shape, "label", where), box, shape.get("group_id"), is_ignore))
    return LabelMeFile(file.name, path, size, shapes)


def to_record(file: LabelMeFile, join_groups: bool, problems: Problems) -> ImageRecord:
    """The record of one file; counts the shapes that are joined to others."""
    objects: list[LabelMeShape] = []
    groups: dict[tuple[str, str], LabelMeShape] = {}
    for shape in file.shapes:
        grouped = join_groups and shape.group is not None
        first = groups.setdefault((shape.name, str(shape.group)), shape) if grouped else shape
        if first is shape:
            objects.append(shape)
            continue
        first.box = around([(b[i], b[i + 1]) for b in (first.box, shape.box) for i in (0, 2)])
        problems.add(JOINED, f"{shape.where} ({shape.name}, group {shape.group})")
    return ImageRecord(
        path=file.path,
        boxes=[shape.box for shape in objects],
        names=[shape.name for shape in objects],
        size=file.size,
        is_ignore=[shape.is_ignore for shape in objects],
        source=file.name,
    )


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
