"""Checked access to parsed JSON, and the class of a file's boxes in pixels: what readers of tools' exports share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from detkit.data.datasets.coco_file import number_of, short
from detkit.data.datasets.file_formats import describe_json
from detkit.data.datasets.found import FoundData, Place, canonical_split, split_folder
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.problems import FROM_OUTLINE, Problems
from detkit.utils.console import printable
from detkit.utils.types import Tree, Value

Box = list[float]
"""xmin, ymin, xmax, ymax in pixels."""
IGNORE_FLAGS = ("difficult", "ignore", "ignored", "iscrowd", "is_crowd", "crowd")
"""Names of flags and attributes that make an object an ignore region if they are true."""
HEAD = 65_536
"""Bytes at the beginning of a file that show its format."""
MOST_FILES = 50
"""Files of one suffix of which one must be of a format, so that others are looked into."""


def describe_other(content: Value) -> str:
    """What a JSON file is that belongs to another reader, in words."""
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return "a COCO file"
    return describe_json(content) or "JSON of an unknown kind"


def text_at(entry: Tree, key: str, where: str) -> str:
    """A text that is not empty; ValueError otherwise."""
    value = entry.get(key)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError(f"{where}: {lacks(entry, key, 'a text')}")


def number_at(entry: Tree, key: str, where: str) -> float:
    """A number, which may be written as text; ValueError otherwise."""
    number = number_of(entry.get(key))
    if number is None:
        raise ValueError(f"{where}: {lacks(entry, key, 'a number')}")
    return number


def integer_at(entry: Tree, key: str, where: str) -> int:
    """A whole number, which may be written as text; ValueError otherwise."""
    number = number_at(entry, key, where)
    if not number.is_integer():
        raise ValueError(f"{where}: {lacks(entry, key, 'a whole number')}")
    return int(number)


def list_at(entry: Tree, key: str, where: str) -> list[Value]:
    """A list; an empty one for a missing key or null."""
    value = entry.get(key)
    if value is None or isinstance(value, list):
        return value or []
    raise ValueError(f"{where}: {lacks(entry, key, 'a list')}")


def object_of(value: Value, where: str) -> Tree:
    """The value itself; ValueError unless it is an object."""
    if isinstance(value, dict):
        return value
    raise ValueError(f"{where} is {short(value)}, not an object")


def objects_at(entry: Tree, key: str, where: str, name: str) -> Iterator[tuple[str, Tree]]:
    """(position in words, object) of each object of a list. name: of one of them, as in "shape"."""
    for i, value in enumerate(list_at(entry, key, where), start=1):
        yield f"{where}, {name} {i}", object_of(value, f"{where}, {name} {i}")


def lacks(entry: Tree, key: str, wanted: str) -> str:
    """What is wrong with the value of a key."""
    return f"{key} is {short(entry[key])}, not {wanted}" if key in entry else f"no {key!r}"


def points_of(value: Value, where: str) -> list[tuple[float, float]]:
    """Points from a list of x and y pairs, or of numbers x, y, x, y; ValueError for anything else."""
    if isinstance(value, list) and value and not isinstance(value[0], (list, tuple, dict)):
        value = [value[i : i + 2] for i in range(0, len(value), 2)]
    pairs = [point_of(pair) for pair in value] if isinstance(value, list) else [None]
    points = [pair for pair in pairs if pair is not None]
    if not points or len(points) < len(pairs):
        raise ValueError(f"{where}: points are {short(value)}, not pairs of x and y")
    return points


def point_of(value: Value) -> tuple[float, float] | None:
    """A point; None for what is none."""
    if isinstance(value, dict):
        value = [value.get("x"), value.get("y")]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    x, y = map(number_of, value)
    return None if x is None or y is None else (x, y)


def around(points: Iterable[tuple[float, float]]) -> Box:
    """The box around points."""
    xs, ys = zip(*points, strict=True)
    if not all(map(math.isfinite, (*xs, *ys))):  # min and max of NaN depend on the order
        return [math.nan] * 4
    return [min(xs), min(ys), max(xs), max(ys)]


def around_ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Box:
    """The box around an ellipse whose first axis is turned clockwise."""
    if not math.isfinite(degrees):
        return [math.nan] * 4
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    width, height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return [x - width, y - height, x + width, y + height]


def around_turned(box: Sequence[float], degrees: float, centre: tuple[float, float] | None = None) -> Box:
    """The box around a box that is turned clockwise about a point. centre: None is its own."""
    x1, y1, x2, y2 = box
    if degrees % 360 == 0:
        return [x1, y1, x2, y2]
    if not math.isfinite(degrees):
        return [math.nan] * 4
    cx, cy = centre or ((x1 + x2) / 2, (y1 + y2) / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x - cx, y - cy) for x in (x1, x2) for y in (y1, y2)]
    return around((cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in corners)


def turned_box(box: Sequence[float], degrees: float, where: str, problems: Problems) -> Box:
    """A box, or the one around it where it is turned, which is counted."""
    if not degrees:
        return list(box)
    problems.add(FROM_OUTLINE, f"{where}: bbox turned by {degrees:g} degrees")
    return around_turned(box, degrees)


def is_true(value: Value) -> bool:
    """Whether a flag is set: true, 1, or one of these as text."""
    return value is True or value == 1 or (isinstance(value, str) and value.strip().lower() in ("1", "true", "yes"))


def has_ignore_flag(flags: Value) -> bool:
    """Whether one of `IGNORE_FLAGS` is set in a map of flags or attributes."""
    return isinstance(flags, dict) and any(is_true(v) for k, v in flags.items() if str(k).lower() in IGNORE_FLAGS)


def size_at(entry: Tree, height: str, width: str) -> tuple[int, int]:
    """(height, width) as stated under two keys; (-1, -1) unless both are numbers above zero."""
    sides = [number_of(entry.get(key)) for key in (height, width)]
    if all(side is not None and math.isfinite(side) and side >= 1 for side in sides):
        return (int(sides[0] or 0), int(sides[1] or 0))
    return (-1, -1)


def declared_first(declared: Iterable[str], used: Iterable[str]) -> list[str]:
    """Class names: the declared ones in their order, then the others in alphabetical order."""
    names = list(dict.fromkeys(declared))
    return names + sorted(set(used).difference(names))


def beginning(path: Path) -> str:
    """The first characters of a text file without spaces outside of words; empty if it can't be read."""
    try:
        status = path.stat()
        return _beginning(str(path), status.st_mtime_ns, status.st_size)
    except OSError:
        return ""


@lru_cache(maxsize=256)
def _beginning(path: str, time: int, size: int) -> str:
    with open(path, "rb") as file:
        raw = file.read(HEAD)
    zeros = raw[:200].count(0)
    encoding = "utf-16" if zeros > 20 else "utf-8-sig"
    return re.sub(r"\s*([\[\]{}:,])\s*", r"\1", raw.decode(encoding, "ignore")).strip()


def recognised(
    place: Place,
    suffix: str,
    marks: re.Pattern[str],
    others: re.Pattern[str] | None = None,
    *,
    every: bool = True,
) -> list[Path]:
    """Files of a suffix whose beginning matches, at a place; none unless one of the first `MOST_FILES` does.

    others: what their beginning must not match. every: whether to look into all files then, or the first are enough.
    """

    def fits(file: Path) -> bool:
        start = beginning(file) if file.suffix.lower() == suffix else ""
        return marks.search(start) is not None and (others is None or others.search(start) is None)

    files = [place.path / file for file in place.with_suffix(suffix)] if place.is_folder else [place.path]
    fitting = list(filter(fits, files[:MOST_FILES]))
    return fitting + list(filter(fits, files[MOST_FILES:] if fitting and every else ()))


def split_files(files: Sequence[Path], place: Place) -> dict[str, Path]:
    """Name of a split -> its file, by the names of files and of folders below the place; one file is "all"."""
    names = [split_of(file, place) for file in files]
    if len(files) == 1:
        return {names[0] or "all": files[0]}
    texts = [name or file.stem for name, file in zip(names, files, strict=True)]
    if len(set(texts)) < len(texts):
        texts = [file.with_suffix("").relative_to(place.path).as_posix() for file in files]
    return dict(zip(texts, files, strict=True))


def split_of(file: Path, place: Place) -> str | None:
    """The split that the name of a file says, or else that of the uppermost folder with such a name below the place."""
    top = split_folder(file.relative_to(place.path)) if place.is_folder else None
    return canonical_split(file.stem) or (canonical_split(top.name) if top is not None else None)


def image_root(file: Path, place: Place) -> Path:
    """The folder below which the images of an annotation file are looked for: its own, or that of the data set."""
    if place.is_folder and not has_images(file.parent):
        return place.path
    return file.parent if has_images(file.parent) else file.parent.parent


def has_images(folder: Path) -> bool:
    """Whether a folder, or one right below it, holds image files."""
    suffixes = image_suffixes()
    try:
        folders = [folder, *(entry for entry in folder.iterdir() if entry.is_dir())]
        return any(entry.suffix.lower() in suffixes for each in folders for entry in each.iterdir())
    except OSError:  # a folder that may not be listed, which the reader reports
        return False


def nodes_of(part: str, files: Sequence[Path], place: Place) -> dict[str, Tree]:
    """Config nodes of a part with the arguments `annotations` and `images`, by split."""
    return {
        split: {"type": part, "annotations": str(file), "images": str(image_root(file, place))}
        for split, file in split_files(files, place).items()
    }


def found_export(
    part: str, format: str, place: Place, marks: re.Pattern[str], what: str, notes: tuple[str, ...] = ()
) -> FoundData | None:
    """What the JSON files of a format at a place are, by their beginnings; None without any. what: shows it."""
    files = recognised(place, ".json", marks)
    if not files:
        return None
    return FoundData(format, found_text(files, place, what), nodes_of(part, files, place), notes)


def found_text(files: Sequence[Path], place: Place, what: str) -> str:
    """Why a format is recognised: "a.json, which lists ..."."""
    name = files[0].relative_to(place.path) if place.is_folder else files[0].name
    return f"{printable(name)}, {what}"
