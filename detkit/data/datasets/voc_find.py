"""Finds Pascal VOC data below a folder, and its splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from detkit.data.datasets.found import FoundData, Place, canonical_split, named_splits, outside_splits, split_folder
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.voc_lists import stem_of
from detkit.utils.console import plural, printable, shorten_list
from detkit.utils.types import Tree

LISTS = "ImageSets/Main"
FROM_ZERO = "pixels are counted from 0, as LabelImg does (one_based: false)"
"""The note on files that are found without the lists of the challenges."""
HEAD = 4096
"""Bytes of a file in which its root element must begin."""
CLASS_LIST = re.compile(r"_(train|val|trainval|test)$")
"""The lists of a class in ImageSets/Main."""


def find_voc(place: Place) -> FoundData | None:
    """The splits of a Pascal VOC data set: by the lists of the challenges, else by the folders of its XML files."""
    roots = list_roots(place)
    if roots:
        return by_lists(place, roots)
    files = [file for file in place.with_suffix(".xml") if is_annotation(place.path / file)]
    return by_folders(place, files) if files else None


def list_roots(place: Place) -> list[Path]:
    """Folders with Annotations and lists in ImageSets/Main, relative to the place."""
    lists = {file.parent for file in place.with_suffix(".txt") if file.parent.as_posix().endswith(LISTS)}
    return sorted(p.parent.parent for p in lists if (place.path / p.parent.parent / "Annotations").is_dir())


def counts_from_zero(place: Place) -> bool:
    """Whether there are XML files as of LabelImg, outside the folders of the challenges, whose pixels count from 1."""
    if list_roots(place) or all((place.path / folder).is_dir() for folder in (LISTS, "Annotations")):
        return False
    return any(is_annotation(place.path / file) for file in place.with_suffix(".xml"))


def by_lists(place: Place, roots: Sequence[Path]) -> FoundData:
    """The splits of the folders of a VOC challenge; those of several roots have the root in their names."""
    splits: dict[str, Tree] = {}
    for root in roots:
        lists = sorted(path.stem for path in (place.path / root / LISTS).glob("*.txt"))
        names = [name for name in lists if not CLASS_LIST.search(name)]
        start = f"{root.as_posix()}/" if len(roots) > 1 else ""
        for split, name in zip(named_splits(names), names, strict=True):
            splits[start + split] = {"type": "VocDataset", "root": str(place.path / root), "split": name}
    return FoundData("Pascal VOC", f"its folders Annotations and {LISTS}", splits)


def by_folders(place: Place, files: Sequence[Path]) -> FoundData:
    """The splits of XML files by the names of their folders; all of them without such folders."""
    groups: dict[Path | None, list[Path]] = {}
    for file in files:
        groups.setdefault(split_folder(file), []).append(file)
    names = split_names([folder for folder in groups if folder is not None])
    loose = groups.pop(None, [])
    splits = {names[folder]: split_node(place, folder) for folder in groups if folder is not None}
    from_zero = (FROM_ZERO,) if counts_from_zero(place) else ()
    notes = (*from_zero, *outside_splits(loose if splits else (), "XML file"), *lists_elsewhere(place, files))
    splits = splits or {"all": split_node(place, Path("."))}
    why = f"{plural(len(files), 'XML file')} with the root <annotation>, as {printable(files[0])}"
    return FoundData("Pascal VOC", why, splits, notes)


def lists_elsewhere(place: Place, files: Sequence[Path]) -> tuple[str, ...]:
    """A note on lists of images that lie where none are read; none without such lists. files: the XML files."""
    stems = {file.stem for file in files}
    named = [file for file in place.with_suffix(".txt") if canonical_split(file.stem) or file.stem == "trainval"]
    lists = [printable(file) for file in named if lists_images(place.path / file, stems)]
    text = "the images of splits, and not read: VocDataset reads lists in ImageSets/Main beside Annotations"
    return (f"{shorten_list(lists)} {'lists' if len(lists) == 1 else 'list'} {text}",) if lists else ()


def lists_images(file: Path, stems: set[str]) -> bool:
    """Whether the first line of a text file names one of some images."""
    try:
        lines = file.read_bytes()[:HEAD].decode("utf-8", "ignore").splitlines()
    except OSError:
        return False
    return bool(lines) and stem_of(lines[0].strip() or "?", stems) in stems


def split_names(folders: Sequence[Path]) -> dict[Path, str]:
    """Folder -> name of its split; a split of several folders has their paths for names."""
    names = [canonical_split(folder.name) or folder.name for folder in folders]
    return {
        folder: name if names.count(name) == 1 else folder.as_posix()
        for folder, name in zip(folders, names, strict=True)
    }


def split_node(place: Place, folder: Path) -> Tree:
    """The config node of the XML files below a folder; its root is where their images are, too."""
    suffixes = image_suffixes()
    has_images = any(file.is_relative_to(folder) and file.suffix.lower() in suffixes for file in place.files)
    node: Tree = {"type": "VocDataset", "root": str(place.path / folder), "one_based": not counts_from_zero(place)}
    return node if has_images else {**node, "root": str(place.path), "annotations": str(place.path / folder)}


def is_annotation(file: Path) -> bool:
    """Whether an XML file begins as an annotation of VOC does."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(HEAD).replace(b"\0", b"")
    except OSError:
        return False
    return re.search(rb"<([\w.-]+:)?annotation[\s>/]", head) is not None
