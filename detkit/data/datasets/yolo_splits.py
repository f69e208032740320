"""The splits of a YOLO set without data.yaml: lists of images, or folders with the names of splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from detkit.data.datasets.found import SPLIT_NAMES, canonical_split, named_splits, outside_splits, split_folder
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.yolo_labels import looks_like_labels


def folder_splits(folder: Path, files: Sequence[Path]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The entries of each split: lists as train.txt, or folders as images/train or train/images; else "all".

    Also says what is not read. files: those below the folder, relative to it.
    """
    images = [file for file in files if file.suffix.lower() in image_suffixes()]
    lists = [file for file in files if is_list(folder, file, images)]
    return (of_lists(lists), ()) if lists else of_folders(images)


def is_list(folder: Path, file: Path, images: Sequence[Path]) -> bool:
    """Whether a file at the top is the list of a split, and not the labels of an image with such a name."""
    if len(file.parts) > 1 or file.suffix.lower() != ".txt" or canonical_split(file.stem) is None:
        return False
    if any(len(image.parts) == 1 and image.stem == file.stem for image in images):
        return False
    return names_image(folder / file) or (is_plain(file.stem) and not looks_like_labels(folder / file))


def names_image(file: Path) -> bool:
    """Whether the first line of a text file ends as the name of an image does."""
    try:
        lines = (line.strip() for line in file.read_bytes().replace(b"\0", b"").splitlines())
    except OSError:
        return False
    first = next((line for line in lines if line), b"")
    return first.decode("latin-1").lower().endswith(image_suffixes())


def is_plain(name: str) -> bool:
    """Whether a name is that of a split and nothing else but a number, as val2017."""
    plain = re.sub(r"[-_ ]?\d*$", "", name.lower())
    return any(plain in names for names in SPLIT_NAMES.values())


def of_lists(lists: Sequence[Path]) -> dict[str, list[str]]:
    """Splits of lists. Where several lists are of one split, each has its own name, as none of them is all of it."""
    names = named_splits([file.stem for file in lists])
    return {name: [str(file)] for name, file in zip(names, lists, strict=True)}


def of_folders(images: Sequence[Path]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Splits of folders; a split of several folders has the images of all of them."""
    tops: dict[str, list[str]] = {}
    outside = []
    for image in images:
        top = split_folder(image)
        if top is None:
            outside.append(image)
        elif top.as_posix() not in (of_split := tops.setdefault(canonical_split(top.name) or top.name, [])):
            of_split.append(top.as_posix())
    if not tops:
        return {"all": ["."]}, ()
    return {split: sorted(folders) for split, folders in tops.items()}, outside_splits(outside, "image")
