"""CSV tables of boxes, recognised by their columns, and the images and classes beside them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

from detkit.data.datasets.csv_columns import CORNERS, SIDES, is_keras, is_tutorial, known_roles
from detkit.data.datasets.csv_file import Table, first_row, read_table
from detkit.data.datasets.csv_images import CsvImageFinder
from detkit.data.datasets.entries import split_of
from detkit.data.datasets.found import FoundData, Place, canonical_split, is_file, split_synonyms
from detkit.data.datasets.voc_find import FROM_ZERO, counts_from_zero
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree

TABLES = (".csv", ".tsv")
MOST_FOLDERS = 20
"""Folders of images that are tried for a table, besides those near it."""


def find_tables(place: Place) -> FoundData | None:
    """The tables of boxes at a place, each read once; None if there are none."""
    files = [place.path / file for file in place.with_suffix(*TABLES)] if place.is_folder else [place.path]
    found = (table_of_boxes(file) for file in files if file.suffix.lower() in TABLES)
    tables = [table for table in found if table is not None]
    if not tables:
        return None
    parts = [part for table in tables for part in parts_of(table, place)]
    named = [part for part in parts if part.split] or parts
    read = list(dict.fromkeys(part.name for part in named))
    left = [name for table in tables if (name := name_at(table, place)) not in read]
    notes = [f"not read: {shorten_list(left)}"] if left else []
    notes += [note for table in tables if (note := rows_left_out(table, place))]
    splits = splits_of(named, place)
    notes += [FROM_ZERO] if any(node.get("one_based") is False for node in splits.values()) else []
    return FoundData("CSV", f"the columns of {shorten_list(read, 3)}", splits, tuple(notes))


@dataclass(frozen=True)
class Part:
    """A table, or its rows with one value in the column `split`.

    name: of the table, as messages have it. split: its name; None if nothing says one.
    """

    table: Table
    name: str
    split: str | None
    value: str | None = None


def parts_of(table: Table, place: Place) -> list[Part]:
    """The parts of a table: by its column `split`, else the whole by the name of the file or of its folder."""
    name = name_at(table, place)
    values = [value for value in split_values(table) if value]
    if values:
        return [Part(table, name, canonical_split(value) or value, value) for value in values]
    return [Part(table, name, split_of(Path(table.path), place))]


def split_values(table: Table) -> Counter[str]:
    """Value of the column `split` -> its rows; empty without such a column, or if no value is the name of a split."""
    header = table.rows[0].texts
    column = None if is_keras(header) else known_roles(header).get("split")
    values = Counter(row.texts[column] for row in table.rows[1:] if column is not None and column < len(row.texts))
    return values if any(map(canonical_split, values)) else Counter()


def rows_left_out(table: Table, place: Place) -> str | None:
    """What a table has besides its splits, in words; None if it is nothing."""
    count, name = split_values(table)[""], name_at(table, place)
    return f"{name}: {plural(count, 'row is', 'rows are')} in no split, and not read" if count else None


def splits_of(parts: Sequence[Part], place: Place) -> dict[str, Tree]:
    """Split -> config node. A split of several tables has their files for names, as none of them is all of it."""
    names = [part.split or "all" for part in parts]
    full = ["/".join(filter(None, (part.name, part.value))) for part in parts]
    chosen = [name if names.count(name) == 1 else own for name, own in zip(names, full, strict=True)]
    nodes = {part.name: node_of(part.table, place) for part in parts}
    of_parts = [{**nodes[part.name], **({} if part.value is None else {"split": part.value})} for part in parts]
    return dict(sorted(zip(chosen, of_parts, strict=True), key=itemgetter(0)))


def name_at(table: Table, place: Place) -> str:
    """The path of a table as messages name it: relative to the place."""
    path = Path(table.path)
    return path.relative_to(place.path).as_posix() if place.is_folder else path.name


def table_of_boxes(path: Path) -> Table | None:
    """A CSV file with a header of known columns, or rows as keras-retinanet's; None for any other."""
    try:
        first = first_row(str(path))
        return read_table(str(path)) if first is not None and has_boxes(first) else None
    except (ValueError, OSError):
        return None


def has_boxes(first: Sequence[str]) -> bool:
    """Whether the first row of a table is a header of known columns, or as keras-retinanet's."""
    roles = set(known_roles(first))
    boxes = set(CORNERS) <= roles or set(SIDES) <= roles or "box" in roles
    return is_keras(first) or ("image" in roles and boxes)


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


def node_of(table: Table, place: Place) -> Tree:
    """The config node that reads a whole table."""
    node: Tree = {"type": "CsvDataset", "annotations": table.path, "images": str(image_folder(table, place))}
    classes = classes_near(Path(table.path), place)
    if classes is None and is_of_labelimg(table, place):
        node["one_based"] = False
    return node if classes is None else {**node, "classes": str(classes)}


def is_of_labelimg(table: Table, place: Place) -> bool:
    """Whether a table is made of XML files of LabelImg that are there, too: both must give the same boxes.

    Tables with a file of classes are not of the tutorials; detkit writes such ones, with pixels from 1.
    """
    near = place if place.is_folder else Place(Path(table.path).parent)
    return is_tutorial(table.rows[0].texts) and counts_from_zero(near)


def image_folder(table: Table, place: Place) -> Path:
    """The folder near a table that has most of its first images, else one of the place's; its own if none has any."""
    file, first = Path(table.path), table.rows[0].texts
    has_header = not is_keras(first)
    column = known_roles(first)["image"] if has_header else 0
    rows = table.rows[has_header:][:200]
    names = [row.texts[column].replace("\\", "/") for row in rows if column < len(row.texts) and row.texts[column]]
    stem = re.sub(r"[-_ ]?(labels|annotations|bboxes|boxes|annotation|label|_)+$", "", file.stem, flags=re.IGNORECASE)
    # Folders of these names go before those that have the images of every split.
    named = [name for name in dict.fromkeys((stem, file.stem, *split_synonyms(stem))) if name]
    places = [f"{above}{name}" for above in ("", "images/", "../", "../images/") for name in named]
    places += ["", "images", "..", "../images"]
    folders = [Path(os.path.normpath(file.parent / place)) for place in places]
    nearest = max(folders, key=lambda folder: count_images(folder, names))
    return nearest if count_images(nearest, names) else far_folder(names, place) or file.parent


def far_folder(names: Sequence[str], place: Place) -> Path | None:
    """The folder of a place that has most of some images; None if none has any, or several have as many."""
    if not names or not place.is_folder:
        return None
    parts = Path(names[0].lstrip("/")).parts or ("",)
    same = [file for file in place.files if ends_with(file, parts)]
    folders = dict.fromkeys(place.path.joinpath(*file.parts[: -len(parts)]) for file in same)
    counts = {folder: count_images(folder, names) for folder in islice(folders, MOST_FOLDERS)}
    best = [folder for folder, count in counts.items() if count and count == max(counts.values())]
    return best[0] if len(best) == 1 else None


def ends_with(file: Path, parts: Sequence[str]) -> bool:
    """Whether a path ends as a name does, which may lack the suffix."""
    return parts[-1] in (file.name, file.stem) and file.parts[-len(parts) : -1] == tuple(parts[:-1])


def count_images(folder: Path, names: Sequence[str]) -> int:
    """How many images a folder has of those that a table names, with their suffixes or without, as the reader does."""
    finder = CsvImageFinder(str(folder))
    bare = [name for name in names if not name.lower().endswith(finder.suffixes)]
    exact = [name for name in names if is_file(folder / name)]
    by_stem = [name for name in bare if name not in exact and finder.by_stem(str(folder / name))]
    return len(exact) + len(by_stem)
