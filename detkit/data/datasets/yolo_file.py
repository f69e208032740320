"""One label file of YOLO: a class number and a shape in fractions of the image on each line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detkit.data.datasets.box_formats import to_corners
from detkit.data.datasets.entries import Box, around
from detkit.data.datasets.file_formats import decode_text, describe_text
from detkit.data.datasets.problems import Kind, Problems
from detkit.utils.console import plural, shorten_list

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE | re.ASCII)
LARGEST_FRACTION = 2.0
"""A larger coordinate is a pixel: not even a box far over the edge reaches it."""
FEWEST_POSES = 3
"""Lines that look like poses from which on this is no accident."""
FROM_SHAPE = Kind("[boxes are|box is] drawn around the points of a polygon or an oriented box", quiet=True)
CONFIDENCES = Kind("[lines have|line has] a confidence, as detections have; it is not read")
COMMAS = Kind("label [lines have|line has] commas, which are read as spaces or decimal points", quiet=True)
KEYPOINTS = Kind("[objects have|object has] keypoints, which are not read", quiet=True)


@dataclass(frozen=True)
class Shape:
    """One line of a label file: class number, box xyxy in fractions of the image, line number."""

    number: int
    box: Box
    line: int
    count: int
    """How many numbers the line has."""
    is_pose: bool = False
    """Whether they make sense as a box with keypoints, and hardly as a polygon."""


def read_labels(path: Path, problems: Problems, keypoints: bool = False) -> tuple[list[Shape], list[str]]:
    """The objects of a label file, and what is wrong with lines that can't be read, each with file and line.

    keypoints: whether keypoints follow the box (a data.yaml with kpt_shape), as only that tells them from a polygon.
    """
    try:
        text = decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"{path}: the label file can't be read: {error.strerror}") from None
    shapes, wrong = [], []
    for i, line in enumerate(text.splitlines(), start=1):
        if not line.strip(" \t\0\x1a"):
            continue
        try:
            shapes.append(read_line(line, i, f"{path}:{i}", problems, keypoints))
        except ValueError as error:
            if i == 1 and not line[0].isdigit() and (known := describe_text(text)):
                raise ValueError(f"{path}: not a YOLO label file: the file is {known}") from None
            wrong.append(f"{path}:{i}: {error}")
    if any(shape.count > 6 for shape in shapes) and not keypoints:
        cut = "6 numbers in a file with polygons, which have pairs of x and y behind the class: it seems to be cut off"
        wrong += [f"{path}:{shape.line}: {cut}" for shape in shapes if shape.count == 6]
    return shapes, wrong


def read_line(line: str, number: int, where: str, problems: Problems, keypoints: bool = False) -> Shape:
    """The object of one line; ValueError that says what is wrong with it."""
    texts = split_line(line, where, problems) or [""]
    values = [to_number(text) for text in texts[1:]]
    label, sixth = class_number(texts[0]), None
    pixels = [v for v in values if abs(v) > LARGEST_FRACTION]
    if len(values) < 4:
        raise ValueError(f"{len(texts)} numbers, but a box has 5: class, centre x, centre y, width and height")
    if keypoints:
        if len(values) > 4:
            problems.add(KEYPOINTS, where)
        values, pixels = values[:4], [v for v in values[:4] if abs(v) > LARGEST_FRACTION]
    if len(values) == 5:
        problems.add(CONFIDENCES, where)
        sixth, values, pixels = values[4], values[:4], [v for v in values[:4] if abs(v) > LARGEST_FRACTION]
    if pixels and all(map(math.isfinite, pixels)):
        raise ValueError(f"{pixels[0]:g} is no fraction of the image (0 to 1), but seems to be in pixels")
    if sixth is not None and not 0 <= sixth <= 1:
        raise ValueError(
            f"the sixth number is {texts[5]}, which is no confidence (0 to 1): the angle of an oriented box? Write "
            "such a box by its corners: class x1 y1 x2 y2 x3 y3 x4 y4"
        )
    box = to_corners(values, "cxcywh") if len(values) == 4 else outline_box(values, where, problems)
    return Shape(label, box, number, len(texts), is_pose(values))


def split_line(line: str, where: str, problems: Problems) -> list[str]:
    """The texts of a line, which commas may separate, or stand for decimal points."""
    if "," not in line:
        return line.replace("\0", " ").split()
    problems.add(COMMAS, where)
    words = line.split()
    decimal = len(words) >= 5 and all(re.fullmatch(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?", word) for word in words)
    return [word.replace(",", ".") for word in words] if decimal else line.replace(",", " ").split()


def to_number(text: str) -> float:
    """The number in a text; ValueError unless it is written as numbers are."""
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(text)


def class_number(text: str) -> int:
    """The class of a line, which tools also write as 0.0; ValueError for what is not a whole number from 0."""
    if not re.fullmatch(r"\d{1,9}(\.0*)?", text, re.ASCII):
        raise ValueError(f"the class {text[:40]!r} is not a whole number from 0")
    return int(text.partition(".")[0])


def outline_box(values: list[float], where: str, problems: Problems) -> Box:
    """The box around points x1, y1, x2, y2 ... of a polygon or oriented box; ValueError for half a point."""
    if len(values) % 2 or len(values) < 6:
        raise ValueError(
            f"{len(values) + 1} numbers: neither a box (class and 4 numbers), nor one with a confidence (5), nor a "
            "polygon (pairs of x and y), nor one with keypoints (kpt_shape in data.yaml says how many)"
        )
    problems.add(FROM_SHAPE, where)
    return around(zip(values[0::2], values[1::2], strict=True))


def is_pose(values: list[float]) -> bool:
    """Whether numbers that can be read as a polygon are a box (centre, sides) and keypoints in it instead.

    Keypoints are x, y or x, y, visibility; of those that are not seen, both are 0 or -1.
    """
    if len(values) < 8 or not all(map(math.isfinite, values)):
        return False
    x1, y1, x2, y2 = to_corners([v * side for v, side in zip(values[:4], (1, 1, 1.1, 1.1), strict=True)], "cxcywh")
    rest = values[4:]
    visible = len(rest) % 3 == 0 and all(v in (0, 1, 2) for v in rest[2::3])
    step = 3 if visible else 2
    seen = [(x, y) for x, y in zip(rest[0::step], rest[1::step], strict=True) if (x, y) not in ((0, 0), (-1, -1))]
    if not seen or not all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in seen):
        return False
    left, top, right, bottom = around([(values[0], values[1]), *seen])
    return visible or not (left <= values[2] <= right and top <= values[3] <= bottom)


def check_pose(shapes: Mapping[str, list[Shape]], name: str) -> None:
    """Raises ValueError if every polygon of some label files seems to be a box with keypoints."""
    polygons = [(path, shape) for path, items in shapes.items() for shape in items if shape.count > 6]
    if len(polygons) < FEWEST_POSES or not all(shape.is_pose for _, shape in polygons):
        return
    path, first = polygons[0]
    raise ValueError(
        f"{name}: {path}:{first.line} and all other lines of more than 6 numbers seem to be boxes with keypoints, "
        "which would be read as polygons: write kpt_shape: [NUMBER, 2] (or 3, with visibility) into data.yaml, or "
        "remove all but the first five numbers"
    )


def check_classes(shapes: dict[str, list[Shape]], names: dict[int, str], name: str) -> None:
    """Raises ValueError that names the lines whose class has no name. shapes: of each label file."""
    wrong = [
        f"{path}:{s.line}: class {s.number}" for path, items in shapes.items() for s in items if s.number not in names
    ]
    if wrong:
        used = {s.number for items in shapes.values() for s in items}
        hint = ". The classes seem to count from 1; they must count from 0" if counts_from_one(used, names) else ""
        raise ValueError(
            f"{name}: {plural(len(wrong), 'object has', 'objects have')} a class without a name: "
            f"{shorten_list(wrong, 5)}. The names: {shorten_list([f'{k}: {n}' for k, n in names.items()], 12)}{hint}. "
            "Correct the label files, or add the names"
        )


def counts_from_one(used: set[int], names: dict[int, str]) -> bool:
    """Whether the numbers of classes lie between 1 and their count."""
    return set(names) == set(range(len(names))) and 0 not in used and max(used) == len(names)
