"""Where the label files of YOLO lie: in `labels` beside a folder of images, or beside the image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from detkit.data.datasets.image_files import Folders
from detkit.data.datasets.yolo_file import LARGEST_FRACTION

IMAGE_FOLDERS = ("images", "jpegimages")
"""Folders of images, in lower case, beside which there is a folder `labels`."""

OBJECTS = {".xml": re.compile(rb"<object[\s>]"), ".json": re.compile(rb'"shapes"\s*:\s*\[\s*\{')}
"""Suffix of an annotation file of another format -> what it has if it has objects."""


class LabelFiles:
    """The label file of each image: in `labels` beside the last folder `images` of its path, or beside the image."""

    def __init__(self, images: Iterable[str]) -> None:
        self.folders = Folders()
        self.of_image = {image: self.find(image) for image in images}
        self._spellings: dict[str, dict[str, list[str]]] = {}

    def find(self, image: str) -> str | None:
        """The label file of an image; None if it has none."""
        return next((place for place in label_places(image) if place in self.folders), None)

    def unused(self) -> list[str]:
        """Label files in the folders of the used ones that belong to no image."""
        used = {place for image in self.of_image for place in label_places(image)}
        parents = sorted({os.path.dirname(path) for path in self.of_image.values() if path})
        found = [
            os.path.join(p, n) for p in parents for n in sorted(self.folders.names(p)) if n.lower().endswith(".txt")
        ]
        return [path for path in found if path not in used and looks_like_labels(Path(path))]

    def in_another_case(self) -> list[str]:
        """Files that would be the labels of an image without any, if case did not count: Labels/a.txt, labels/a.TXT."""
        used = {path for path in self.of_image.values() if path}
        without = [image for image, path in self.of_image.items() if path is None]
        found = (self.spelled(*from_fork(image, place)) for image in without for place in label_places(image))
        return list(dict.fromkeys(path for path in found if path and path not in used))

    def is_annotated(self, image: str) -> bool:
        """Whether a file beside an image has its objects in another format: XML of Pascal VOC, JSON of LabelMe."""
        files = [f"{os.path.splitext(image)[0]}{suffix}" for suffix in OBJECTS]
        return any(file in self.folders and has_objects(Path(file)) for file in files)

    def spelled(self, folder: str, names: Sequence[str]) -> str | None:
        """The path below a folder with these names in any case; None if there is none."""
        if not names:
            return folder
        if folder not in self._spellings:
            self._spellings[folder] = {}
            for name in sorted(self.folders.names(folder)):
                self._spellings[folder].setdefault(name.lower(), []).append(name)
        below = self._spellings[folder].get(names[0].lower(), [])
        return next((p for name in below if (p := self.spelled(os.path.join(folder, name), names[1:]))), None)


def has_objects(file: Path) -> bool:
    """Whether an XML or JSON file of one image lists an object."""
    try:
        return OBJECTS[file.suffix].search(file.read_bytes().replace(b"\0", b"")) is not None
    except OSError:
        return False


def label_places(image: str) -> list[str]:
    """Where the labels of an image may be, in the order in which they are looked for."""
    stem, parts = os.path.splitext(image)[0], image.split(os.sep)
    beside = [f"{stem}.txt"]
    for i in reversed(range(len(parts) - 1)):
        if parts[i].lower() in IMAGE_FOLDERS:
            below = os.path.splitext(os.sep.join(parts[i + 1 :]))[0]
            return [os.sep.join([*parts[:i], "labels", f"{below}.txt"]), *beside]
    return beside


def from_fork(image: str, place: str) -> tuple[str, list[str]]:
    """The last folder that an image and the place of its labels share, and the names that lead from it to the place."""
    shared = os.path.commonpath([os.path.dirname(image), os.path.dirname(place)])
    return shared, os.path.relpath(place, shared).split(os.sep)


def looks_like_labels(path: Path, largest: float = LARGEST_FRACTION) -> bool:
    """Whether the first lines of a text file are a class and at least four numbers, none above `largest`."""
    try:
        with path.open("rb") as file:
            text = file.read(2000).replace(b"\0", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
        lines = [line.split() for line in text.splitlines()[:3] if line.strip()]
        return (
            bool(lines)
            and all(len(line) >= 5 and 0 <= float(line[0]) < 1e6 for line in lines)
            and all(abs(float(number)) <= largest for number in lines[0][1:])
        )
    except (OSError, ValueError):
        return False
