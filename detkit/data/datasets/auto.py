"""Data sets whose format is found by looking."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL.Image import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import read_json
from detkit.data.datasets.found import FoundData, Place, canonical_split
from detkit.data.datasets.records import BadBoxes
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree

log = logging.getLogger("detkit")
ORDER = ("YoloDataset", "CocoDataset", "VocDataset", "ParquetDataset")
"""Parts that are asked first: where a folder holds the same boxes in several formats, the first one wins."""


def find_data(path: str | Path) -> FoundData:
    """The data set at a file or folder, whatever its format.

    Every registered data set part looks (`DetectionDataset.find`). If several find something, the first of `ORDER` is
    taken and the others are in its notes. FileNotFoundError if nothing is there; ValueError, that says what the place
    holds, if no part knows it.
    """
    place = Place(Path(path))
    if not place.path.exists():
        raise FileNotFoundError(f"no data set {printable(place.path)}: there is no such file or folder")
    found = [each for part in finders() if (each := part.find(place)) is not None]
    if not found:
        if place.path.suffix.lower() == ".json" and not place.is_folder:
            read_json(str(place.path))  # says what the file is instead
        raise ValueError(f"{printable(place.path)}: no data set of a known format is there; it holds {contents(place)}")
    first, *others = found
    notes = [f"also found: {other.format}, because of {other.why}; not read" for other in others]
    return FoundData(first.format, first.why, first.splits, (*first.notes, *notes))


def finders() -> list[type[DetectionDataset]]:
    """Every registered data set part, in the order in which they are asked."""
    known = DATASETS.names()
    names = [name for name in ORDER if name in known] + [name for name in known if name not in ORDER]
    return [part for name in names if issubclass(part := DATASETS.get(name), DetectionDataset)]


def contents(place: Place) -> str:
    """What a place holds, in words."""
    if not place.is_folder:
        return f"a file with the suffix {place.path.suffix or 'none'}"
    counts = [f"{count} {suffix or 'files without suffix'}" for suffix, count in place.suffixes.most_common()]
    return shorten_list(counts, 8) or "nothing"


@DATASETS.register()
class AutoDataset(DetectionDataset):
    """A data set of any known format, found by looking; the log says which and why.

    Args:
        root: file or folder, as data.yaml, annotations.json, or a folder of images and XML files.
        split: train, val, test or another split that is there; null takes the only one.
        class_names: the classes and their order; null takes those of the data.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    def __init__(
        self,
        *,
        root: PathStr,
        split: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        found = find_data(root)
        log.info("%s: %s, because of %s", root, found.format, found.why)
        more = {
            "class_names": class_names,
            "class_map": class_map,
            "ignore_classes": ignore_classes,
            "bad_boxes": bad_boxes,
            "keep_empty": keep_empty,
        }
        self.dataset: DetectionDataset = DATASETS.build({**split_node(found, split, str(root)), **more})
        self.name, self.classes, self.problems = self.dataset.name, self.dataset.classes, self.dataset.problems
        self.records, self.keep_empty = self.dataset.records, keep_empty
        self.reads_files, self.roots = self.dataset.reads_files, self.dataset.roots
        self.layout = self.dataset.layout

    def load_image(self, index: int) -> Image:
        self.dataset.image_options = self.image_options
        return self.dataset.load_image(index)

    def origin(self, index: int) -> tuple[DetectionDataset, int]:
        return self.dataset.origin(index)


def split_node(found: FoundData, split: str | None, name: str) -> Tree:
    """The config node of a split, or of the only one; ValueError that lists the splits there are."""
    known = shorten_list(list(found.splits))
    if split is None and len(found.splits) != 1:
        raise ValueError(f"{name} has the splits {known}: choose one with `split`")
    key = next(iter(found.splits)) if split is None else canonical_split(split) or split
    for each in (split, key):
        if each is not None and each in found.splits:
            return found.splits[each]
    raise ValueError(f"{name}: {found.format} has no split {split!r}, only {known}")
