"""Finds COCO files in a folder, and the folders of their images."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detkit.data.datasets.found import SPLIT_NAMES, FoundData, Place, is_file, named_splits, split_synonyms
from detkit.utils.console import printable, shorten_list

PARTS = (b"images", b"annotations", b"categories")
OTHER = (b"segments_info",)
"""Keys of files with the same lists that have no boxes: panoptic ones."""
FILES = 100
"""JSON files of a folder that are looked into; a folder of more has one for each image, as LabelMe's."""
PROBES = 5
"""Images of a file that must lie in a folder for it to be the right one."""
MADE_BY = {
    "_annotations.coco": "Roboflow",
    "instances_default": "CVAT",
    "result": "Label Studio",
}
"""Names of files, without suffix, that a tool gives its export."""
PLAIN_WORDS = re.compile(r"^_?(instances|person_keypoints|annotations)[._]?|[._]?(coco|annotations|instances)$")
"""What the name of a COCO file has around that of its split."""


@dataclass(frozen=True)
class CocoFile:
    """A COCO file: its path, and the first file names of its images."""

    path: Path
    names: tuple[str, ...]


def find_coco(place: Place) -> FoundData | None:
    """The COCO files of a folder as splits, or a single one."""
    uppermost = sorted(place.with_suffix(".json"), key=lambda file: len(file.parts))[:FILES]
    paths = [place.path / file for file in uppermost] if place.is_folder else [place.path]
    files = [file for path in paths if (file := look_into(path)) is not None]
    files = without_keypoints(files)
    if not files:
        return None
    words = [split_name(file.path, place) for file in files]
    own = [shown(file.path.with_suffix(""), place) for file in files]
    names = named_splits(words if len(set(words)) == len(words) else own)
    names = names if len(names) > 1 or names[0] in SPLIT_NAMES else ["all"]
    splits, notes = {}, []
    for file, name in zip(files, names, strict=True):
        folder = image_folder(file, place)
        if folder is None:
            notes.append(f"the images of {shown(file.path, place)} ({shorten_list(file.names, 2)}) are not near it")
        images = str(folder or file.path.parent)
        splits[name] = {"type": "CocoDataset", "annotations": str(file.path), "images": images}
    first = files[0].path
    tool = f", as {MADE_BY[first.stem]} names it" if first.stem in MADE_BY else ""
    why = f"the lists images, annotations and categories in {shown(first, place)}{tool}"
    return FoundData("COCO JSON", why, splits, tuple(notes))


def shown(path: Path, place: Place) -> str:
    """The name of a file for messages."""
    return printable(path.relative_to(place.path)) if place.is_folder else printable(path.name)


def look_into(path: Path) -> CocoFile | None:
    """What a COCO file has, without parsing it; None for another file."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    raw = raw.replace(b"\0", b"") if b"\0" in raw[:10] else raw  # UTF-16
    if not all(re.search(rb'"%s"\s*:' % part, raw) for part in PARTS) or any(key in raw for key in OTHER):
        return None
    found = (match[1] for match in re.finditer(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', raw))
    names = [decoded for _, text in zip(range(PROBES), found, strict=False) if (decoded := decode(text))]
    return CocoFile(path, tuple(names))


def decode(text: bytes) -> str | None:
    """A JSON string; None for a damaged one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) and "\0" not in value else None


def without_keypoints(files: Sequence[CocoFile]) -> list[CocoFile]:
    """The files but for those of person keypoints where there are others, as in the folder of COCO itself."""
    others = [file for file in files if not file.path.stem.startswith("person_keypoints")]
    return others or list(files)


def split_name(file: Path, place: Place) -> str:
    """What a file's name or folder says of its split; "all" for nothing."""
    stem = PLAIN_WORDS.sub("", PLAIN_WORDS.sub("", file.stem))
    parent = file.parent.name if file.parent != place.path and file.parent.name != "annotations" else ""
    return stem if stem and file.stem not in MADE_BY else parent or "all"


def image_folder(file: CocoFile, place: Place) -> Path | None:
    """The folder near a COCO file, or anywhere in the place, that has its first images; None if there is none."""
    names = [name.replace("\\", "/") for name in file.names]
    if not names:
        return file.path.parent
    for folder in near_folders(file.path):
        if all(is_file(folder / name) for name in names):
            return folder
    last = [name.rpartition("/")[2] for name in names]
    if (by_name := search(place, names) or search(place, last)) is not None:
        return by_name
    counts = {folder: sum(is_file(folder / name) for name in last) for folder in near_folders(file.path)}
    best = max(counts, key=lambda folder: counts[folder])
    return best if counts[best] else None


def near_folders(file: Path) -> list[Path]:
    """Folders that usually have the images of a file; those of its own name come first, as val before images."""
    stem = PLAIN_WORDS.sub("", PLAIN_WORDS.sub("", file.stem))
    words = [stem, re.sub(r"(?<=[a-z])\d+$", "", stem)]
    named = [file.stem, *(words if stem else ()), *split_synonyms(stem)]
    places = [*named, *(f"images/{word}" for word in named), *(f"../{word}" for word in named)]
    places += [*(f"../images/{word}" for word in named), *(f"../{word}/images" for word in named)]
    places += ["", "images", "data", "..", "../images", "../JPEGImages", "../data"]
    return list(dict.fromkeys(Path(os.path.normpath(file.parent / name)) for name in places))


def search(place: Place, names: Iterable[str]) -> Path | None:
    """The only folder of a place below which all names are; None for none or several."""
    common: set[Path] | None = None
    for name in names:
        parts = Path(name).parts
        count = len(parts)
        folders = {Path(*file.parts[:-count]) for file in place.files if file.parts[-count:] == parts}
        common = folders if common is None else common & folders
    return place.path / next(iter(common)) if common and len(common) == 1 else None
