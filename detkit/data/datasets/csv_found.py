"""CSV tables of boxes, recognised by their columns, and the images and classes beside them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from detkit.data.datasets.csv_columns import CORNERS, SIDES, columns_of, is_keras, known_roles
from detkit.data.datasets.csv_file import read_table
from detkit.data.datasets.found import FoundData, Place, canonical_split, is_file
from detkit.utils.console import shorten_list


def find_tables(place: Place) -> FoundData | None:
    """The tables of boxes at a place, at most one folder deep; None if there are none."""
    files = [place.path / file for file in place.files if len(file.parts) <= 2] if place.is_folder else [place.path]
    tables = [file for file in files if file.suffix.lower() in (".csv", ".tsv") and is_boxes(file)]
    if not tables:
        return None
    splits = {canonical_split(file.stem) or "all": file for file in reversed(tables)}
    if len(splits) > 1:
        splits.pop("all", None)
    classes = classes_near(tables[0])
    nodes = {split: node_of(file, classes) for split, file in sorted(splits.items())}
    left = [file.name for file in tables if file not in splits.values()]
    notes = (f"not read: {shorten_list(left)}",) if left else ()
    return FoundData("CSV", f"the columns of {shorten_list([file.name for file in splits.values()], 3)}", nodes, notes)


def is_boxes(path: Path) -> bool:
    """Whether a CSV file has a header of known columns, or rows as keras-retinanet's."""
    try:
        table = read_table(str(path))
    except (ValueError, OSError):
        return False
    roles = set(known_roles(table.rows[0].texts))
    boxes = set(CORNERS) <= roles or set(SIDES) <= roles or "box" in roles
    return is_keras(table.rows[0].texts) or ("image" in roles and boxes)


def classes_near(table: Path) -> Path | None:
    """The file of classes beside a table, as keras-retinanet has it: rows of a name and a number."""
    for file in sorted(table.parent.glob("*.csv")):
        if "class" in file.stem.lower() and file != table and not is_boxes(file):
            return file
    return None


def node_of(file: Path, classes: Path | None) -> dict[str, str]:
    """The config node that reads a table."""
    node = {"type": "CsvDataset", "annotations": str(file), "images": str(image_folder(file))}
    return node if classes is None else {**node, "classes": str(classes)}


def image_folder(file: Path) -> Path:
    """The folder near a table that has its first images; its own if none has."""
    try:
        table = read_table(str(file))
        layout = columns_of(table, None, None, "xyxy", needs_class=False)
        rows = table.rows[layout.has_header :][:200]
        cells = [row.texts[layout.of["image"]] for row in rows if layout.of["image"] < len(row.texts)]
        names = [cell.replace("\\", "/") for cell in cells if cell]
    except ValueError:  # the reader says what is wrong with the file
        return file.parent
    stem = re.sub(r"[-_ ]?(labels|annotations|bboxes|boxes|annotation|label|_)+$", "", file.stem, flags=re.IGNORECASE)
    places = ["", stem, file.stem, "images", f"images/{stem}", "..", f"../{stem}", "../images", f"../images/{stem}"]
    folders = [Path(os.path.normpath(file.parent / place)) for place in dict.fromkeys(places)]
    return max(folders, key=lambda folder: sum(is_file(folder / name) for name in names))
