"""What a YOLO data set consists of: data.yaml, obj.data or a folder; its classes, and the images of each split."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from detkit.data.datasets.file_formats import read_text
from detkit.data.datasets.found import SPLIT_NAMES, is_file, walk
from detkit.data.datasets.yolo_splits import folder_splits
from detkit.data.datasets.yolo_yaml import Field, yaml_fields
from detkit.utils.console import printable, shorten_list

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
NOTHING = ("", "~", "null", "none")
"""How YAML writes that a key has no value, in lower case."""


@dataclass(frozen=True)
class YoloData:
    """A YOLO data set before any image is looked at.

    source: data.yaml or folder, as messages name it. root: folder that the entries are relative to. names: class names
    by number. splits: folders and lists of images of each split. keypoints: whether label lines end in keypoints.
    notes: how paths were read that lead elsewhere. others: what else is there and is not read, in words.
    """

    source: str
    root: Path
    names: Mapping[int, str]
    splits: Mapping[str, list[str]]
    keypoints: bool = False
    notes: list[str] = field(default_factory=list)
    others: tuple[str, ...] = ()


def open_data(path: str | Path, names: list[str] | None = None) -> YoloData:
    """Reads data.yaml or obj.data, or looks at a folder; errors name file and key. names: instead of a file's."""
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"no data set {printable(place)}: there is no such file or folder")
    if place.is_dir():
        if not (described := data_files(place)):
            return open_folder(place, names)
        first, *others = described
        left = (f"not read: {shorten_list([printable(file.name) for file in others])}",) if others else ()
        return replace(open_data(first, names), others=left)
    data = read_darknet(place) if place.suffix.lower() == ".data" else read_yaml(place)
    return data if names is None else replace(data, names=check_names(dict(enumerate(names)), f"{place}: names"))


def data_files(folder: Path) -> list[Path]:
    """The files of a folder that describe a YOLO set, data.yaml first, then other .yaml with `names`, then obj.data."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".yaml", ".yml") and p.is_file())
    files.sort(key=lambda p: p.stem.lower() not in ("data", "dataset"))
    darknet = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".data" and p.is_file())
    return [*(p for p in files if is_data_yaml(p)), *darknet]


def data_file_below(folder: Path, files: Iterable[Path]) -> Path | None:
    """The data.yaml somewhere below a folder, as an archive may have it; ValueError that lists them if it has several.

    files: those below the folder, relative to it.
    """
    named = [file for file in files if file.suffix.lower() in (".yaml", ".yml")]
    found = [file for file in named if is_file(folder / file) and is_data_yaml(folder / file)]
    if len(found) > 1:
        raise ValueError(
            f"{printable(folder)}: {len(found)} data sets of YOLO are there, each with its own classes: "
            f"{shorten_list([printable(file) for file in found], 5)}. Name one of these files instead of the folder"
        )
    return folder / found[0] if found else None


def is_data_yaml(path: Path) -> bool:
    """Whether a file has top-level keys of a data.yaml: names or nc, and a split."""
    with path.open("rb") as file:
        start = file.read(200_000).decode("utf-8", "replace")
    keys = set(re.findall(r"^([A-Za-z]\w*)[ \t]*:", start, flags=re.M))
    return bool(keys & {"names", "nc"}) and bool(keys & {"train", "val", "test", "valid"})


def read_yaml(path: Path) -> YoloData:
    """Reads a data.yaml."""
    fields = yaml_fields(read_text(path), str(path))
    splits = {}
    for canonical, keys in SPLIT_NAMES.items():
        given = [key for key in keys if text_list(fields.get(key, ""), f"{path}: {key}")]
        if len(given) > 1:
            raise ValueError(f"{path}: {' and '.join(given)} are one split: remove one of them")
        if given:
            splits[canonical] = text_list(fields[given[0]], f"{path}: {given[0]}")
    if not splits:
        raise ValueError(
            f"{path}: not a data.yaml of YOLO: it has none of the keys train, val and test (its keys: "
            f"{shorten_list(list(fields), 10) or 'none'})"
        )
    notes: list[str] = []
    root = root_of(path, fields.get("path", ""), notes)
    return YoloData(str(path), root, names_of(fields, path), splits, "kpt_shape" in fields, notes)


def text_list(value: Field, name: str) -> list[str]:
    """The entries of a split: one, several or none."""
    if isinstance(value, dict):
        raise ValueError(f"{name} must be a folder, a list of images (.txt), or several of them")
    entries = [value] if isinstance(value, str) else value
    return [entry.strip() for entry in entries if entry.strip().lower() not in NOTHING]


def names_of(fields: Mapping[str, Field], path: Path) -> dict[int, str]:
    """Class names by number; ValueError if they contradict nc, or one is there twice or empty."""
    given, nc = fields.get("names", ""), whole(fields.get("nc", ""), f"{path}: nc")
    if isinstance(given, str):
        if given.strip().lower() not in NOTHING:
            raise ValueError(f"{path}: names: {given[:60]!r} must be a list, as [cat, dog], or a map from 0: cat")
        if nc is None:
            raise ValueError(f"{path}: names: the class names are missing, as in `names: [cat, dog]`")
        given = [str(k) for k in range(nc)]
    pairs = enumerate(given) if isinstance(given, list) else given.items()
    names = {whole(str(key), f"{path}: names") or 0: name.strip() for key, name in pairs}
    if len(names) != len(given):
        raise ValueError(f"{path}: names: a class number is there twice")
    if nc is not None and nc != len(names):
        raise ValueError(f"{path}: nc is {nc}, but names has {len(names)}: {shorten_list(list(names.values()), 12)}")
    return check_names(dict(sorted(names.items())), f"{path}: names")


def whole(value: Field, name: str) -> int | None:
    """A whole number from 0; None for nothing."""
    if isinstance(value, str) and value.strip().lower() in NOTHING:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,6}", value.strip(), re.ASCII):
        raise ValueError(f"{name}: {value!r} must be a whole number from 0 to 999999")
    return int(value)


def check_names(names: dict[int, str], where: str) -> dict[int, str]:
    """The names; ValueError if there is none, one is empty, or two are the same."""
    if not names:
        raise ValueError(f"{where}: there are no class names, so there is nothing to detect")
    empty = [k for k, name in names.items() if not name]
    if empty:
        raise ValueError(f"{where}: class {empty[0]} has no name, or more than a text")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: two classes have the name {twice[0]!r}. Rename one; class_map can merge them then")
    return names


def read_darknet(path: Path) -> YoloData:
    """Reads obj.data of Darknet and of CVAT's YOLO export: lines of `key = value`."""
    lines = read_text(path).splitlines()
    fields = {key.strip(): value.strip() for key, found, value in (line.partition("=") for line in lines) if found}
    if not {"names", "train"} <= set(fields):
        raise ValueError(f"{path}: not an obj.data of YOLO: no line `train = ...` or no line `names = ...`")
    notes: list[str] = []
    names_file = locate(fields["names"], path.parent, notes)
    if names_file is None:
        raise FileNotFoundError(f"{path}: names: no file {printable(fields['names'])}, there or in {path.parent}")
    splits = {canonical: [fields[key]] for canonical, keys in SPLIT_NAMES.items() for key in keys if fields.get(key)}
    return YoloData(str(path), path.parent, read_names(names_file), splits, notes=notes)


def read_names(path: Path) -> dict[int, str]:
    """Class names of a text file, one on each line."""
    text = read_text(path).rstrip()
    lines = [line.strip() for line in text.splitlines()]
    return check_names(dict(enumerate(lines)), str(path))


def open_folder(folder: Path, names: list[str] | None = None) -> YoloData:
    """A set without data.yaml: class names in a text file, splits by the names of folders or lists."""
    files = list(walk(folder))
    if names is None:
        names_file = names_in(folder, files)
        described = data_file_below(folder, files) if names_file is None else None
        if described is not None:
            return read_yaml(described)
        if names_file is None:
            raise FileNotFoundError(
                f"{printable(folder)}: the class names are missing: neither data.yaml nor a file with a name on each "
                f"line ({', '.join(NAME_FILES[:3])}) is there. Write classes.txt, or set `names`"
            )
        numbered = read_names(names_file)
    else:
        numbered = check_names(dict(enumerate(names)), "names")
    splits, others = folder_splits(folder, files)
    return YoloData(str(folder), folder, numbered, splits, others=others)


def names_in(folder: Path, files: list[Path]) -> Path | None:
    """The file of class names that is nearest to the top of a folder; ValueError if several say different things."""
    found = [file for file in files if file.name.lower() in NAME_FILES]
    found.sort(key=lambda file: (len(file.parts), NAME_FILES.index(file.name.lower())))
    contents = {(folder / file).read_bytes().split() != (folder / found[0]).read_bytes().split() for file in found}
    same_depth = [file for file in found if len(file.parts) == len(found[0].parts)]
    if True in contents and len(same_depth) > 1:
        raise ValueError(
            f"{printable(folder)}: several files of class names differ: {shorten_list(same_depth)}. Name the folder of "
            "one set, make these files alike, or put the right one at the top"
        )
    return folder / found[0] if found else None


def root_of(path: Path, given: Field, notes: list[str]) -> Path:
    """The folder that `path` of a data.yaml means; the file's own where that is not on this machine, which is noted."""
    entries = text_list(given, f"{path}: path")
    if not entries:
        return path.parent
    root = located(entries[0], path.parent)
    if root is not None and root.is_dir():
        return root
    if plain_parts(entries[0]):
        notes.append(f"{path}: path: no folder {printable(entries[0])} is there; {path.parent} is used")
    return path.parent


def locate(entry: str, root: Path, notes: list[str], beside: Path | None = None) -> Path | None:
    """Where an entry leads on this machine: as it is written, else by the longest end of it that is there; else None.

    beside: another folder that it may be relative to.
    """
    folders = [root, *([beside] if beside and beside != root else [])]
    for folder in folders:
        if (found := located(entry, folder)) is not None:
            return found
    parts = plain_parts(entry)
    for start in range(len(parts)):
        for folder in folders:
            if is_there(candidate := folder.joinpath(*parts[start:])):
                notes.append(f"{printable(entry)} is not there; {candidate} is used")
                return candidate
    return None


def located(entry: str, folder: Path) -> Path | None:
    """The file or folder that an entry names, relative to `folder` or absolute; None if it is not there."""
    if "\0" in entry:
        return None
    for text in dict.fromkeys((entry, entry.replace("\\", "/"))):
        candidate = Path(os.path.normpath(folder / os.path.expanduser(text)))
        if is_there(candidate):
            return candidate
    return None


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder, which there is not if the name is too long for one."""
    try:
        return path.exists()
    except OSError:
        return False


def plain_parts(entry: str) -> list[str]:
    """The names in a path of any system, without drive, root and dots."""
    text = PureWindowsPath(entry).as_posix()
    return [part for part in PurePosixPath(text).parts if part not in ("/", "..", ".") and not part.endswith(":/")]
