"""The entries of a COCO instances file, checked and brought into one form whatever tool wrote them."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from detkit.data.datasets.file_formats import describe_json, read_json_file
from detkit.data.datasets.problems import (
    BAD_AREA,
    BAD_IDS,
    FROM_MASK,
    KEYPOINTS,
    MASKS,
    OTHER_KEYS,
    RENUMBERED,
    UNUSED_CATEGORIES,
    Problems,
)
from detkit.data.datasets.records import NO_ID
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree, Value

Entry = Tree
"""One image, category or annotation."""
LARGEST_SIDE = 2**15
"""Pixels; of a mask, whose area must fit 32 bits."""
INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")


def read_json(path: str) -> Entry:
    """Reads a COCO instances file and checks its entries; errors name the file and what it is instead."""
    content = read_json_file(path)
    known = None if isinstance(content, dict) and set(PARTS) <= set(content) else describe_json(content)
    if known or not isinstance(content, dict):
        raise ValueError(f"{path}: not a COCO instances file: it is {known}")
    for part in PARTS:
        check_entries(content, part, path)
    return content


def check_entries(content: Entry, part: str, name: str) -> None:
    """Raises ValueError unless `content[part]` is a list whose entries have what a box needs."""
    if part not in content:
        keys = f" (its keys: {shorten_list(list(content))})" if content else " (it is an empty object)"
        raise ValueError(f"{name}: no list {part!r}{keys}; this is not a COCO instances file")
    entries = content[part]
    if not isinstance(entries, list):
        kind = type(entries).__name__
        raise ValueError(f"{name}: {part!r} is a {kind}, not a list; this is not a COCO instances file")
    wrong = [f"{part}[{i}] {why}" for i, entry in enumerate(entries) if (why := entry_problem(entry, PARTS[part]))]
    if wrong:
        known = describe_json(content)
        raise ValueError(
            f"{name}: {len(wrong)} of {len(entries)} entries of {part!r} are broken: {shorten_list(wrong)}"
            + (f". The file is {known}" if known else ". Correct these entries, or remove them")
        )
    if part == "categories" and not entries:
        raise ValueError(f"{name}: 'categories' is empty: without classes there is nothing to detect")


def entry_problem(entry: Value, keys: Mapping[str, tuple[str, Callable[[object], bool]]]) -> str | None:
    """What is wrong with an entry; None for nothing."""
    if not isinstance(entry, dict):
        return f"is {short(entry)}, not an object"
    for key, (wanted, good) in keys.items():
        if good(entry.get(key)) or (key == "bbox" and entry.get(key) in (None, []) and mask_box(entry)):
            continue
        which = f" (id {short(entry['id'])})" if key != "id" and "id" in entry else ""
        hint = " and no usable segmentation" if key == "bbox" and "segmentation" in entry else ""
        if key not in entry:
            return f"has no {key!r}{which}{hint}"
        return f"{which} has {key} {short(entry[key])}, not {wanted}{hint}".strip()
    return None


def short(value: object) -> str:
    """A value as text of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def number_of(value: object) -> float | None:
    """A number, which may be written as text; None for anything else."""
    if type(value) is float:
        return value
    try:
        return float(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None


def normalize_id(value: object) -> str | None:
    """An id in the form in which 1, 1.0, "1" and "1.0" are equal; None for what is not an id."""
    if type(value) is int:
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        integer = text.removesuffix(".0")
        return (integer if integer.removeprefix("-").isdecimal() else text) or None
    if not isinstance(value, float) or not value.is_integer() or abs(value) >= 2**63:
        return None
    return str(int(value))


def id_of(entry: Entry, key: str = "id") -> str:
    """An id of a checked entry in normal form."""
    return normalize_id(entry[key]) or ""


def object_id_of(entry: Entry) -> int:
    """The id of an annotation; NO_ID without one, and for a text or a number of more than 64 bits."""
    text = normalize_id(entry.get("id")) or ""
    return int(text) if is_integer(text) else NO_ID


def is_integer(text: str) -> bool:
    """Whether an id in normal form is a 64-bit integer in its usual form, which 01 is not."""
    return bool(INTEGER.fullmatch(text)) and abs(int(text)) < 2**63


def is_file_name(value: object) -> bool:
    """A text that a file can have for a name: no zero byte, nothing that the file system can't encode."""
    try:
        return isinstance(value, str) and bool(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(number_of(v) is not None for v in value)


ID: tuple[str, Callable[[object], bool]] = ("a whole number or a text", lambda value: normalize_id(value) is not None)
PARTS: dict[str, dict[str, tuple[str, Callable[[object], bool]]]] = {
    "images": {"id": ID, "file_name": ("a file name", is_file_name)},
    "categories": {"id": ID, "name": ("a text", lambda value: isinstance(value, str) and bool(value.strip()))},
    "annotations": {"image_id": ID, "category_id": ID, "bbox": ("a list of 4 numbers", is_box)},
}


READ_KEYS = {
    "images": {"id", "file_name", "width", "height"},
    "categories": {"id", "name"},
    "annotations": {
        "id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "num_keypoints",
    },
}  # fmt: skip


def mask_box(entry: Entry) -> list[float] | None:
    """x, y, width and height around the polygons or the mask of a segmentation; None without any."""
    shape = entry.get("segmentation")
    if isinstance(shape, dict):
        return rle_box(shape)
    if not isinstance(shape, list):
        return None
    flat = [p for p in shape if isinstance(p, list)] or [shape]
    x = [number_of(v) for p in flat for v in p[0::2]]
    y = [number_of(v) for p in flat for v in p[1::2]]
    xs, ys = [v for v in x if v is not None], [v for v in y if v is not None]
    if not xs or len(xs) != len(x) or len(ys) != len(xs):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def rle_box(shape: Entry) -> list[float] | None:
    """x, y, width and height around a run-length encoded mask; None for an empty or broken one."""
    size, counts = shape.get("size"), shape.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int and 0 < v < LARGEST_SIDE for v in size)):
        return None
    height, width = size
    runs = unpack_counts(counts) if isinstance(counts, str) else counts
    # pycocotools would read beyond runs that do not fill the mask.
    if not isinstance(runs, list) or any(type(v) is not int or v < 0 for v in runs) or sum(runs) != height * width:
        return None
    from pycocotools import mask

    box: list[float] = mask.toBbox(mask.frPyObjects({"size": size, "counts": runs}, height, width)).tolist()
    return box if box[2] > 0 else None


def unpack_counts(text: str) -> list[int]:
    """The runs of a mask in COCO's compressed form: 5 bits a character, from the fourth on as differences.

    An empty list if the text is broken. Source: maskApi.c of pycocotools, rleFrString.
    """
    runs: list[int] = []
    value = shift = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 60:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return [] if shift else runs


def box_of(entry: Entry, where: str, problems: Problems) -> list[float]:
    """x, y, width and height of an annotation, from its polygons if it has no box."""
    bbox = entry.get("bbox")
    if not bbox:
        bbox = mask_box(entry)
        assert bbox is not None  # else check_entries had refused it
        problems.add(FROM_MASK, f"{where}: {[round(v, 2) for v in bbox]}")
    return [float(v) for v in bbox]


def area_of(entry: Entry, box: Sequence[float], where: str, problems: Problems) -> float:
    """The annotated area (in COCO that of the mask), or the box's if there is none."""
    area = entry.get("area")
    number = number_of(area)
    if number is not None and math.isfinite(number):
        return number
    if area is not None:
        problems.add(BAD_AREA, f"{where}: area={short(area)}")
    return box[2] * box[3]


def is_crowd(entry: Entry, where: str) -> bool:
    """Whether an annotation is a crowd region; pycocotools takes any value that is true."""
    value = entry.get("iscrowd")
    if isinstance(value, str):
        if value.strip().lower() not in ("0", "1", "true", "false", ""):
            raise ValueError(f"{where}: iscrowd={value!r} must be 0 or 1")
        return value.strip().lower() in ("1", "true")
    return bool(value)


def size_of(image: Entry, name: str) -> tuple[int, int]:
    """(height, width) as stated, (-1, -1) where it is not."""
    height, width = (side_of(image, key, name) for key in ("height", "width"))
    return (height, width) if height > 0 and width > 0 else (-1, -1)


def side_of(image: Entry, key: str, name: str) -> int:
    """A side of an image as stated, -1 where it is not; ValueError for what is not a number."""
    side = image.get(key)
    number = -1.0 if side is None else number_of(side)
    if number is None or not math.isfinite(number):
        raise ValueError(f"{name}: image {image['id']} ({image['file_name']}) has {key} {short(side)}, not a number")
    return int(number)


def integer_ids(ids: Sequence[str], what: str, problems: Problems) -> dict[str, int]:
    """Normal ids -> integers; if one is text or too large, all are numbered in alphabetical order."""
    first = next((i for i in ids if not is_integer(i)), None)
    if first is None:
        return {i: int(i) for i in ids}
    ordered = sorted(set(ids))
    problems.add(RENUMBERED, f"{what} ids, such as {first!r}: 1 to {len(ordered)}", count=len(ordered))
    return {i: k for k, i in enumerate(ordered, start=1)}


def categories_of(content: Entry, used: Counter[str], name: str, problems: Problems) -> dict[str, str]:
    """Id -> class name, without identical entries and unused parents of other categories; ValueError for conflicts.

    used: annotations of each category id.
    """
    entries = content["categories"]
    parents = {str(c.get("supercategory")) for c in entries if c.get("supercategory") != c["name"]}
    distinct = Counter((id_of(c), str(c["name"])) for c in entries)
    for (category, class_name), count in distinct.items():
        if count > 1:
            problems.add(UNUSED_CATEGORIES, f"{class_name!r} (id {category}) is listed {count} times", count=count - 1)
    shared = {n for n, count in Counter(n for _, n in distinct).items() if count > 1}
    kept: dict[str, str] = {}
    for category, class_name in distinct:
        if class_name in shared and class_name in parents and not used[category]:
            text = f"{class_name!r} (id {category}) has no annotation and heads other categories"
            problems.add(UNUSED_CATEGORIES, text)
            continue
        if category in kept:
            raise ValueError(
                f"{name}: the category id {category} has two names, {kept[category]!r} and {class_name!r}: "
                "give one of them another id in `categories`, or remove the wrong entry"
            )
        kept[category] = class_name
    for class_name, count in Counter(kept.values()).items():
        if count > 1:
            ids = [f"id {i} ({plural(used[i], 'annotation')})" for i, n in kept.items() if n == class_name]
            raise ValueError(
                f"{name}: the class name {class_name!r} is given to {count} categories: {', '.join(ids)}. Rename all "
                "but one in `categories` (class_map can merge them then), or give their annotations one category_id"
            )
    return kept


def count_unread(content: Entry) -> Problems:
    """What the entries of `content["images"]` and their annotations have that no record holds, counted by kind."""
    problems = Problems()
    names = {id_of(image): f"image {image['id']} ({image['file_name']})" for image in content["images"]}
    items = [item for item in content["annotations"] if id_of(item, "image_id") in names]
    for item in items:
        where = names[id_of(item, "image_id")]
        for key, kind in (("segmentation", MASKS), ("keypoints", KEYPOINTS)):
            if item.get(key):
                problems.add(kind, where)
    read = {"images": content["images"], "annotations": items, "categories": content["categories"]}
    for part, entries in read.items():
        counts = Counter(key for entry in entries for key, value in entry.items() if not_read(part, key, value))
        for key, count in counts.items():
            problems.add(OTHER_KEYS, f"{key} of {count} {part}")
    for key, value in content.items():
        if key not in read and value:
            problems.add(OTHER_KEYS, key)
    return problems


def not_read(part: str, key: str, value: Value) -> bool:
    """Whether an entry of a part says something that detkit does not read, and that is not counted by itself."""
    return key not in READ_KEYS[part] and value not in (None, "", [], {}, "none")


def count_bad_ids(content: Entry, problems: Problems) -> None:
    """Counts annotation ids that are null or used twice. Nothing depends on them."""
    counts = Counter(str(a["id"]) for a in content["annotations"] if a.get("id") is not None)
    twice = [i for i, count in counts.items() if count > 1]
    null = sum("id" in a and a["id"] is None for a in content["annotations"])
    if twice:
        problems.add(BAD_IDS, f"used more than once: {shorten_list(twice)}", count=len(twice))
    if null:
        problems.add(BAD_IDS, f"null in {null} annotations", count=null)
