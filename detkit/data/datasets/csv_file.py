"""A CSV table: its text, its separator, its rows with the lines that they are in, and its numbers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from detkit.data.datasets.file_formats import describe_text, read_text
from detkit.data.datasets.yolo_file import NUMBER

HEAD = 65_536
"""Bytes of a file in which its first row must end."""
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Row:
    """One row: its texts without spaces around them, and its line in the file."""

    texts: list[str]
    line: int


@dataclass(frozen=True)
class Table:
    """A CSV file with its rows, a header included."""

    path: str
    separator: str
    rows: list[Row]

    @property
    def decimal_commas(self) -> bool:
        """Whether a comma can be a decimal point, as it separates nothing."""
        return self.separator != ","


def read_table(path: str, encoding: str | None = None) -> Table:
    """Reads a CSV file; FileNotFoundError or ValueError that names file and line, or what it is instead."""
    text = text_of(path, encoding)
    separator = separator_of(text)
    rows = list(rows_of(text, separator, path))
    if len(rows) == 0 or max(len(row.texts) for row in rows[:20]) < 2:
        known = describe_text(text)
        raise ValueError(f"{path}: not a CSV table: the file is {known or 'without columns'}")
    return Table(path, separator, rows)


def first_row(path: str) -> list[str] | None:
    """The texts of the first row, without reading the rest; None for what is no table."""
    with open(path, "rb") as file:
        raw = file.read(HEAD)
    text = raw.decode(json.detect_encoding(raw), "ignore").removeprefix("\ufeff")
    return next((row.texts for row in rows_of(text, separator_of(text), path)), None)


def text_of(path: str, encoding: str | None) -> str:
    """The text of a file; ValueError that names the encoding and the byte."""
    try:
        return read_text(path, "not a CSV table", encoding)
    except LookupError:
        raise ValueError(f"{path}: encoding: {encoding!r} is not the name of a text encoding") from None
    except UnicodeError as error:
        raise ValueError(f"{path}: encoding: the file is not in {encoding}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{error}, or set `encoding`" if "Save it as" in str(error) else str(error)) from None


def separator_of(text: str) -> str:
    """The separator that the first line has most of, quoted texts left out; a comma where there is none."""
    line = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    return max(SEPARATORS, key=line.count)


def rows_of(text: str, separator: str, path: str) -> Iterator[Row]:
    """The rows that are not blank; ValueError for what the quotes make unreadable."""
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True, skipinitialspace=True)
    start = 1
    try:
        for texts in reader:
            if any(cell.strip() for cell in texts):
                yield Row([cell.strip() for cell in texts], start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{start}: not a CSV table: {error}") from None


def number_in(text: str, decimal_commas: bool) -> float:
    """The number in a cell; ValueError for anything else."""
    plain = text.replace(",", ".") if decimal_commas and text.count(",") == 1 and "." not in text else text
    if not NUMBER.fullmatch(plain):
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(plain)


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    return NUMBER.fullmatch(text) is not None
