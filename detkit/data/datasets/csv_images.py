"""The images of a CSV table, each with the boxes of its rows."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detkit.data.datasets.csv_columns import CORNERS, SIDES, Columns, plain
from detkit.data.datasets.csv_file import Row, Table, number_in, read_table
from detkit.data.datasets.image_files import Folders, image_suffixes, images_by_stem
from detkit.data.datasets.problems import Kind, Problems
from detkit.data.datasets.yolo_data import plain_parts
from detkit.data.datasets.yolo_file import CONFIDENCES
from detkit.utils.console import plural, printable, shorten_list

MOVED = Kind("image [paths lead|path leads] elsewhere; the image with the same end of its path is used", quiet=True)
NO_BOX_OF_CLASS = Kind(
    "[rows have|row has] a class and no box, and [count|counts] as [images|an image] without objects"
)
CONFIDENCE = ("confidence", "score", "conf", "probability")
"""Columns, as `plain` gives their names, that tables of detections have; those of people say 1."""
BRACKETS = "[](){} "
YES, NO = ("1", "true", "yes", "1.0"), ("0", "false", "no", "", "0.0", "-1")


@dataclass
class CsvImage:
    """One image of a table. size: (height, width) as stated or (-1, -1). boxes: as written. line: of its first row."""

    path: str
    size: tuple[int, int] = (-1, -1)
    boxes: list[list[float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    flags: list[bool] = field(default_factory=list)
    line: int = 0


def read_classes(path: str | None, encoding: str | None) -> dict[str, int] | None:
    """Name -> number of a file of classes; ValueError for what is there twice."""
    if path is None:
        return None
    table = read_table(path, encoding)
    rows = table.rows[1:] if not table.rows[0].texts[-1].isdecimal() else table.rows
    classes: dict[str, int] = {}
    for row in rows:
        if len(row.texts) != 2 or not row.texts[0] or not re.fullmatch(r"\d{1,6}", row.texts[1], re.ASCII):
            raise ValueError(f"{path}:{row.line}: a row of classes has a name and a number from 0, as `cat,0`")
        if row.texts[0] in classes or int(row.texts[1]) in classes.values():
            raise ValueError(f"{path}:{row.line}: the class {row.texts[0]!r} or its number is there twice")
        classes[row.texts[0]] = int(row.texts[1])
    if not classes:
        raise ValueError(f"{path}: there are no classes, so there is nothing to detect")
    return dict(sorted(classes.items(), key=lambda item: item[1]))


class Reader:
    """Collects the rows of a table by image."""

    def __init__(
        self, table: Table, columns: Columns, classes: Mapping[str, int] | None, single_class: str | None, folder: str
    ) -> None:
        self.table, self.columns, self.classes, self.single_class = table, columns, classes, single_class
        self.finder, self.problems = CsvImageFinder(folder), Problems()
        first = table.rows[0].texts if columns.has_header else ()
        self.confidence = next((i for i, name in enumerate(first) if plain(name) in CONFIDENCE), None)
        self.used: set[str] = set()
        self.images: dict[str, CsvImage] = {}

    def read(self, split: str | None) -> list[CsvImage]:
        """The images of a split in the order of their first rows; ValueError that lists the rows that are broken."""
        wrong: list[str] = []
        splits: set[str] = set()
        if split is not None and "split" not in self.columns.of:
            raise ValueError(f"{self.table.path}: split: the table has no column `split`; name it with columns")
        for row in self.table.rows[self.columns.has_header :]:
            try:
                values = self.cells(row)
                self.note_class(values)
                splits.add(values.get("split", ""))
                if split is None or values["split"] == split:
                    self.add(values, row)
            except ValueError as error:
                wrong.append(f"line {row.line}: {error}")
        if wrong:
            count = plural(len(wrong), "row is", "rows are")
            raise ValueError(
                f"{self.table.path}: {count} broken: {shorten_list(wrong)}. Correct these rows, or remove them"
            )
        if split is not None and not self.images:
            raise ValueError(
                f"{self.table.path}: no row of the split {split!r}, only of {shorten_list(sorted(splits))}"
            )
        return list(self.images.values())

    def cells(self, row: Row) -> dict[str, str]:
        """Role -> text of a row; ValueError if the row has too few or too many."""
        width = len(self.table.rows[0].texts)
        if len(row.texts) != width and (len(row.texts) < width or any(row.texts[width:])):
            raise ValueError(
                f"{len(row.texts)} columns instead of {width}; a text with a {self.table.separator!r} needs quotes"
            )
        return {role: row.texts[i] for role, i in self.columns.of.items()}

    def note_class(self, values: Mapping[str, str]) -> None:
        """Keeps the classes of every row, so that all splits of a table have the same."""
        if values.get("class") and any(cell.strip(BRACKETS) for cell in self.box_cells(values)):
            self.used.add(self.class_of(values))

    def class_of(self, values: Mapping[str, str]) -> str:
        """The class of a row: its name, or the name of its number in `classes`."""
        text = self.single_class if self.single_class is not None else values["class"]
        if self.classes is None or text in self.classes:
            return text
        named = {str(number): name for name, number in self.classes.items()}
        if text not in named:
            raise ValueError(f"the class {text!r} is not among the {len(self.classes)} of `classes`")
        return named[text]

    def add(self, values: Mapping[str, str], row: Row) -> None:
        """Adds a row to its image."""
        if not values["image"] or "\0" in values["image"]:
            raise ValueError("the name of the image is missing")
        path = self.finder.find(values["image"], self.problems)
        image = self.images.setdefault(path, CsvImage(path, line=row.line))
        self.set_size(image, values)
        texts = self.box_texts(values)
        if not any(texts):
            if values.get("class") and self.single_class is None:
                self.problems.add(NO_BOX_OF_CLASS, f"line {row.line}: {printable(values['class'])}")
            return
        if not all(texts):
            raise ValueError("a number of the box is missing; a row without objects has none of its numbers")
        name = self.class_of(values)
        if not name:
            raise ValueError("the class is missing")
        if self.confidence is not None and row.texts[self.confidence] not in ("", "1", "1.0"):
            self.problems.add(CONFIDENCES, f"line {row.line}: {row.texts[self.confidence][:40]}")
        box = [number_in(text, self.table.decimal_commas) for text in texts]
        image.flags.append(flag(values.get("ignore", "")))
        image.boxes.append(box)
        image.names.append(name)

    def box_texts(self, values: Mapping[str, str]) -> list[str]:
        """The four texts of a box."""
        cells = self.box_cells(values)
        if len(cells) > 1:
            return cells
        parts = [part for part in re.split(r"[\s,;]+", cells[0].strip(BRACKETS)) if part]
        if parts and len(parts) != 4:
            raise ValueError(f"{cells[0][:60]!r} has {len(parts)} numbers instead of 4")
        return parts or [""] * 4

    def box_cells(self, values: Mapping[str, str]) -> list[str]:
        """The cells of a box as they are: four, or one with all its numbers."""
        roles = CORNERS if self.columns.box_format == "xyxy" else SIDES
        return [values[role] for role in (roles if set(roles) <= set(values) else ["box"])]

    def set_size(self, image: CsvImage, values: Mapping[str, str]) -> None:
        """Takes the size that a row states; ValueError if an earlier one states another."""
        sides = [
            number_in(values[key], self.table.decimal_commas) if values.get(key) else 0.0 for key in ("height", "width")
        ]
        if not all(0 < side < 1e9 for side in sides):
            return
        size = (int(sides[0]), int(sides[1]))
        if image.size not in (size, (-1, -1)):
            (h, w), (height, width) = image.size, size
            raise ValueError(f"the image has {width}x{height} pixels here and {w}x{h} in line {image.line}")
        image.size = size

    def class_list(self) -> list[str]:
        """The classes in their order; ValueError if the table has none."""
        if self.classes is not None:
            return list(self.classes)
        if self.single_class is not None:
            return [self.single_class]
        if not self.used:
            raise ValueError(
                f"{self.table.path}: no row has a class and a box, so there is nothing to detect; `classes` can name "
                "the classes"
            )
        return sorted(self.used)


def flag(text: str) -> bool:
    """Whether a text of the column `ignore` says yes; ValueError for what is neither yes nor no."""
    if text.lower() not in (*YES, *NO):
        raise ValueError(f"ignore is {text[:40]!r}, which is neither 0 nor 1")
    return text.lower() in YES


class CsvImageFinder:
    """Finds the image that a table names: as it is written, without its suffix, or by the end of its path."""

    def __init__(self, folder: str) -> None:
        self.folder, self.folders = folder, Folders()
        self.suffixes = image_suffixes()
        self.known: dict[str, str] = {}
        self.stems: dict[str, dict[str, Path]] = {}

    def find(self, name: str, problems: Problems) -> str:
        """The path of an image; of one that is not there the path where it should be."""
        if name not in self.known:
            self.known[name] = self.search(name, problems)
        return self.known[name]

    def search(self, name: str, problems: Problems) -> str:
        path = self.folders.image_path(self.folder, name)
        if path in self.folders:
            return os.path.normpath(path)
        if not path.lower().endswith(self.suffixes) and (found := self.by_stem(path)):
            return found
        parts = plain_parts(name)
        for start in range(1, len(parts)):
            candidate = os.path.join(self.folder, *parts[start:])
            if candidate in self.folders:
                problems.add(MOVED, f"{printable(name)}: {candidate}")
                return candidate
        return os.path.normpath(path)

    def by_stem(self, path: str) -> str | None:
        """The image whose name lacks its suffix in the table."""
        parent, stem = os.path.split(path)
        if parent not in self.stems:
            self.stems[parent] = images_by_stem(Path(parent))
        return str(self.stems[parent][stem]) if stem in self.stems[parent] else None
