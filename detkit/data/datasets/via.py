"""Projects and exports of the VGG Image Annotator (robots.ox.ac.uk/~vgg/software/via) as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
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
    list_at,
    nodes_of,
    number_at,
    object_of,
    points_of,
    recognised,
    text_at,
)
from detkit.data.datasets.file_formats import read_json_file, read_text
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, UNNAMED_CLASS, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import shorten_list
from detkit.utils.types import Tree, Value

JSON_MARKS = re.compile(r'"_via_|^\{"[^"]*":\{[^{]*"filename":.*"regions":[\[{]')
CSV_MARKS = re.compile(r"^[^\n]*filename[^\n]*region_shape_attributes")
ONLY_CLASS = "object"
COLUMNS = ("region_shape_attributes", "region_attributes")
FILE_COLUMNS = ("filename", "#filename")
USUAL = ("class", "label", "name", "type", "category", "object", "class_name", "object_name", "species")
"""Names of the region attribute that usually holds the class, the surest first."""
WITHOUT_BOX = ("point", "polyline")


@DATASETS.register()
class ViaDataset(DetectionDataset):
    """Boxes of a file of the VGG Image Annotator; regions with a true attribute `difficult` are ignore regions.

    A rectangle is a box; a polygon, circle or ellipse gives the box around it; points and lines give none. Where no
    region has an attribute, as in a file with objects of one kind, all are of the class "object".

    Args:
        annotations: project (JSON) or export (JSON or CSV).
        images: folder of the images, with subfolders.
        class_attribute: region attribute that is the class; null takes the only one, or one with a usual name such as
            class or label.
        class_names: the classes and their order; null takes those of the regions, in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = recognised(place, ".json", JSON_MARKS) + recognised(place, ".csv", CSV_MARKS)
        if not files:
            return None
        return FoundData("VIA", found_text(files, place, "with regions"), nodes_of("ViaDataset", files, place))

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        class_attribute: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        problems = Problems()
        entries = read_via(annotations)
        regions = [region for _, regions in entries for region in regions]
        attribute = class_attribute or guess_class_attribute(regions, annotations)
        finder = ImageFinder(images, problems)
        records = [to_record(name, regions, attribute, finder, annotations, problems) for name, regions in entries]
        check_records(records, annotations)
        self.finish_images(
            annotations, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def to_record(
    name: str, regions: list[Region], attribute: str | None, finder: ImageFinder, path: str, problems: Problems
) -> ImageRecord:  # fmt: skip
    """The record of an image."""
    named = [(region, box) for region in regions if (box := box_of(region, problems)) is not None]
    if attribute is None:
        for region, _ in named:
            problems.add(UNNAMED_CLASS, region.where)
    classes = [ONLY_CLASS if attribute is None else class_of(region, attribute) for region, _ in named]
    ignore = [has_ignore_flag(region.attributes) for region, _ in named]
    return ImageRecord(
        path=finder.find(name, f"{path}: {name}"),
        boxes=[box for _, box in named],
        names=classes,
        is_ignore=ignore,
        source=name,
    )


@dataclass(frozen=True)
class Region:
    """A region as the file has it: where it is in words, its outline, its attributes."""

    where: str
    shape: Tree
    attributes: Tree


def read_via(path: str) -> list[tuple[str, list[Region]]]:
    """(file name, regions) of each image; errors name the file and what it is instead."""
    if Path(path).suffix.lower() == ".csv":
        return list(read_csv(path))
    content = read_json_file(path)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) and "regions" in e for e in entries.values()):
        raise ValueError(f"{path}: not a file of VGG Image Annotator: it is {describe_other(content)}")
    return [read_image(entry, path, key) for key, entry in entries.items()]


def read_image(entry: Tree, path: str, key: str) -> tuple[str, list[Region]]:
    """File name and regions of an image; version 1 numbers the regions in a map."""
    name, regions = text_at(entry, "filename", f"{path}: {key}"), entry["regions"]
    values = list(regions.values()) if isinstance(regions, dict) else list_at(entry, "regions", f"{path}: {key}")
    places = [f"{path}: {name}, region {i}" for i in range(1, len(values) + 1)]
    return name, [Region(at, *region_of(object_of(v, at), at)) for v, at in zip(values, places, strict=True)]


def region_of(region: Tree, where: str) -> tuple[Tree, Tree]:
    """Outline and attributes of a region."""
    shape = object_of(region.get("shape_attributes"), f"{where}: shape_attributes")
    return shape, object_of(region.get("region_attributes") or {}, f"{where}: region_attributes")


def read_csv(path: str) -> Iterator[tuple[str, list[Region]]]:
    """The same of a CSV export, which has a row for each region and one for an image without any."""
    text = read_text(path)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        yield from rows_by_image(rows, path)
    except csv.Error as error:
        raise ValueError(f"{path}:{rows.line_num}: not a row of a CSV table: {error}") from None


def rows_by_image(rows: csv.DictReader[str], path: str) -> Iterator[tuple[str, list[Region]]]:
    """File name and regions of each image, in the order of its first row."""
    column = next((name for name in FILE_COLUMNS if name in (rows.fieldnames or ())), None)
    lacking = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if column is None or lacking:
        raise ValueError(f"{path}: not a file of VGG Image Annotator: no column {shorten_list(lacking) or 'filename'}")
    images: dict[str, list[Region]] = {}
    for row in rows:
        where = f"{path}:{rows.line_num}"
        regions = images.setdefault(text_at(row, column, where), [])
        shape, attributes = (cell(row, name, where) for name in COLUMNS)
        if shape:
            regions.append(Region(f"{where} ({row[column]})", shape, attributes))
    yield from images.items()


def cell(row: Tree, column: str, where: str) -> Tree:
    """The JSON object in a cell."""
    if row[column] is None:
        raise ValueError(f"{where}: the row ends before {column}")
    try:
        return object_of(json.loads(row[column] or "{}"), f"{where}: {column}")
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{where}: {column} is {short(row[column])}, not JSON") from None


def guess_class_attribute(regions: Sequence[Region], path: str) -> str | None:
    """The attribute that holds the class; None if no region has any. ValueError if several may be meant."""
    names = {key: None for region in regions for key, value in region.attributes.items() if value not in ("", None, {})}
    usual = [name for wanted in USUAL for name in names if name.lower().replace(" ", "_") == wanted]
    if not names or len(names) == 1:
        return next(iter(names), None)
    if usual:
        return usual[0]
    raise ValueError(
        f"{path}: regions have the attributes {shorten_list(list(names))}: name the one that is the class, "
        f"class_attribute: {next(iter(names))}"
    )


def class_of(region: Region, attribute: str) -> str:
    """The class of a region, of a text or of the only box that is checked; ValueError without one."""
    value = region.attributes.get(attribute)
    if isinstance(value, dict):
        checked = [str(name) for name, on in value.items() if on in (True, "true", 1, "1")]
        value = checked[0] if len(checked) == 1 else value
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    found = "no class" if value in (None, "", {}) else f"{short(value)} for a class"
    raise ValueError(f"{region.where}: {found} (attribute {attribute!r}): give it one in the annotator")


def box_of(region: Region, problems: Problems) -> Box | None:
    """The box of a region; None, counted, for one without. ValueError for an unknown outline."""
    kind, where = region.shape.get("name"), region.where
    if kind in WITHOUT_BOX:
        problems.add(NO_BOX, f"{where}: {kind}")
        return None
    if not isinstance(kind, str) or kind not in OUTLINES:
        raise ValueError(f"{where}: the outline is {short(kind)}; known: {', '.join([*OUTLINES, *WITHOUT_BOX])}")
    if kind != "rect":
        problems.add(FROM_OUTLINE, f"{where}: {kind}")
    return OUTLINES[kind](region.shape, where)


def rect(shape: Tree, where: str) -> Box:
    x, y, width, height = (number_at(shape, key, where) for key in ("x", "y", "width", "height"))
    return [x, y, x + width, y + height]


def polygon(shape: Tree, where: str) -> Box:
    xs, ys = (list_at(shape, key, where) for key in ("all_points_x", "all_points_y"))
    if len(xs) != len(ys) or len(xs) < 2:
        raise ValueError(f"{where}: {len(xs)} x and {len(ys)} y of a polygon")
    return around(points_of([[x, y] for x, y in zip(xs, ys, strict=True)], where))


def circle(shape: Tree, where: str) -> Box:
    x, y, radius = (number_at(shape, key, where) for key in ("cx", "cy", "r"))
    return around_ellipse(x, y, radius, radius)


def ellipse(shape: Tree, where: str) -> Box:
    """The angle of version 2 is in radians."""
    x, y, rx, ry = (number_at(shape, key, where) for key in ("cx", "cy", "rx", "ry"))
    turn = number_at(shape, "theta", where) if "theta" in shape else 0.0
    return around_ellipse(x, y, rx, ry, math.degrees(turn))


OUTLINES: dict[Value, Callable[[Tree, str], Box]] = {
    "rect": rect, "polygon": polygon, "circle": circle, "ellipse": ellipse,
}  # fmt: skip
