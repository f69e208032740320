"""CSV tables of boxes, recognised by their columns, and the images and classes beside them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from detkit.data.datasets.csv_columns import CORNERS, SIDES, columns_of, is_keras, is_tutorial, known_roles
from detkit.data.datasets.csv_file import read_table
from detkit.data.datasets.csv_images import CsvImageFinder
from detkit.data.datasets.entries import split_of
from detkit.data.datasets.found import FoundData, Place, canonical_split, is_file
from detkit.data.datasets.voc_find import FROM_ZERO, counts_from_zero
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree


def find_tables(place: Place) -> FoundData | None:
    """The tables of boxes at a place, at most one folder deep; None if there are none."""
    files = [place.path / file for file in place.files if len(file.parts) <= 2] if place.is_folder else [place.path]
    tables = [file for file in files if file.suffix.lower() in (".csv", ".tsv") and is_boxes(file)]
    if not tables:
        return None
    parts = [part for file in tables for part in parts_of(file, place)]
    named = [part for part in parts if part.split] or parts
    left = [name_at(file, place) for file in tables if file not in {part.file for part in named}]
    notes = [f"not read: {shorten_list(left)}"] if left else []
    notes += [note for file in tables if (note := rows_left_out(file, place))]
    splits = splits_of(named, place)
    shared = [name for name in splits if name not in {part.split or "all" for part in named}]
    notes += [f"one of several tables of a split, so each is its own: {shorten_list(shared)}"] if shared else []
    notes += [FROM_ZERO] if any(node.get("one_based") is False for node in splits.values()) else []
    why = shorten_list(list(dict.fromkeys(name_at(part.file, place) for part in named)), 3)
    return FoundData("CSV", f"the columns of {why}", splits, tuple(notes))


@dataclass(frozen=True)
class Part:
    """A table, or its rows with one value in the column `split`. split: its name; None if nothing says one."""

    file: Path
    split: str | None
    value: str | None = None


def parts_of(file: Path, place: Place) -> list[Part]:
    """The parts of a table: by its column `split`, else the whole by the name of the file or of its folder."""
    values = [value for value in split_values(file) if value]
    if values:
        return [Part(file, canonical_split(value) or value, value) for value in values]
    return [Part(file, split_of(file, place))]


def split_values(file: Path) -> Counter[str]:
    """Value of the column `split` -> its rows; empty without such a column, or if no value is the name of a split."""
    rows = read_table(str(file)).rows
    column = None if is_keras(rows[0].texts) else known_roles(rows[0].texts).get("split")
    values = Counter(row.texts[column] for row in rows[1:] if column is not None and column < len(row.texts))
    return values if any(map(canonical_split, values)) else Counter()


def rows_left_out(file: Path, place: Place) -> str | None:
    """What a table has besides its splits, in words; None if it is nothing."""
    count = split_values(file)[""]
    return f"{name_at(file, place)}: {plural(count, 'row is', 'rows are')} in no split, and not read" if count else None


def splits_of(parts: Sequence[Part], place: Place) -> dict[str, Tree]:
    """Split -> config node. A split of several tables has their files for names, as none of them is all of it."""
    names = [part.split or "all" for part in parts]
    full = ["/".join(filter(None, (name_at(part.file, place), part.value))) for part in parts]
    chosen = [name if names.count(name) == 1 else own for name, own in zip(names, full, strict=True)]
    return {name: node_of(part, place) for name, part in sorted(zip(chosen, parts, strict=True), key=itemgetter(0))}


def name_at(file: Path, place: Place) -> str:
    """The path of a file as messages name it: relative to the place."""
    return file.relative_to(place.path).as_posix() if place.is_folder else file.name


def is_boxes(path: Path) -> bool:
    """Whether a CSV file has a header of known columns, or rows as keras-retinanet's."""
    try:
        table = read_table(str(path))
    except (ValueError, OSError):
        return False
    roles = set(known_roles(table.rows[0].texts))
    boxes = set(CORNERS) <= roles or set(SIDES) <= roles or "box" in roles
    return is_keras(table.rows[0].texts) or ("image" in roles and boxes)


def classes_near(table: Path, place: Place) -> Path | None:
    """The file of classes beside a table or at the place, as keras-retinanet has it: rows of a name and a number."""
    folders = (table.parent, place.path) if place.is_folder else (table.parent,)
    for file in (file for folder in folders for file in sorted(folder.glob("*.csv"))):
        if "class" in file.stem.lower() and file != table and is_classes(file):
            return file
    return None


def is_classes(path: Path) -> bool:
    """Whether a CSV file has rows of a name and a number; the reader says which of its rows are wrong."""
    try:
        rows = read_table(str(path)).rows
    except (ValueError, OSError):
        return False
    return len(rows[0].texts) == 2 and any(row.texts[-1].isdecimal() for row in rows)


def node_of(part: Part, place: Place) -> Tree:
    """The config node that reads a table, or one of its splits."""
    node: Tree = {"type": "CsvDataset", "annotations": str(part.file), "images": str(image_folder(part.file))}
    if part.value is not None:
        node["split"] = part.value
    classes = classes_near(part.file, place)
    if classes is None and is_of_labelimg(part.file, place):
        node["one_based"] = False
    return node if classes is None else {**node, "classes": str(classes)}


def is_of_labelimg(file: Path, place: Place) -> bool:
    """Whether a table is made of XML files of LabelImg that are there, too: both must give the same boxes.

    Tables with a file of classes are not of the tutorials; detkit writes such ones, with pixels from 1.
    """
    near = place if place.is_folder else Place(file.parent)
    return is_tutorial(read_table(str(file)).rows[0].texts) and counts_from_zero(near)


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
    return max(folders, key=lambda folder: count_images(folder, names))


def count_images(folder: Path, names: Sequence[str]) -> int:
    """How many images a folder has of those that a table names, with their suffixes or without, as the reader does."""
    finder = CsvImageFinder(str(folder))
    bare = [name for name in names if not name.lower().endswith(finder.suffixes)]
    exact = [name for name in names if is_file(folder / name)]
    by_stem = [name for name in bare if name not in exact and finder.by_stem(str(folder / name))]
    return len(exact) + len(by_stem)
