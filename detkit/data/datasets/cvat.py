"""Exports of CVAT in its own format: "CVAT for images" and "CVAT for video"."""

from __future__ import annotations

import re
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.cvat_file import declared_classes, frame_records, image_records, read_cvat, subsets
from detkit.data.datasets.entries import beginning, declared_first, found_text, image_root, recognised, split_files
from detkit.data.datasets.found import FoundData, Place, named_splits
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import BadBoxes
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree

MARKS = re.compile(r"<annotations\b")
EXPECTED = re.compile(r"<(version|meta|image|track)\b")


@DATASETS.register()
class CvatDataset(DetectionDataset):
    """Boxes of an XML file of CVAT; objects with the attribute `difficult` are ignore regions.

    A polygon, ellipse, mask, cuboid or turned box gives the box around it; points, lines, tags and skeletons give none.
    Of a video, every frame with an image file is an image: files are found by the number at the end of their names. A
    track has no object in frames where it is `outside`; boxes that are left out between keyframes are interpolated.

    Args:
        annotations: XML file.
        images: folder of the images or frames, with subfolders.
        split: subset of a project; null takes all images.
        class_names: the classes and their order; null takes the labels of the task, in its order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = [file for file in recognised(place, ".xml", MARKS) if is_cvat(file)]
        if not files:
            return None
        nodes: dict[str, Tree] = {}
        notes: tuple[str, ...] = ()
        for split, file in split_files(files, place).items():
            node = {"type": "CvatDataset", "annotations": str(file), "images": str(image_root(file, place))}
            names, without = subsets_of(file) if len(files) == 1 else ([], 0)
            if names and without:
                notes += (f"{plural(without, 'image has no subset and is', 'images have no subset and are')} not read",)
            nodes |= {s: {**node, "split": n} for s, n in zip(named_splits(names), names, strict=True)} or {split: node}
        return FoundData("CVAT XML", found_text(files, place, "whose root is <annotations>"), nodes, notes)

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        split: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        name = annotations if split is None else f"{annotations} ({split})"
        root, problems = read_cvat(annotations), Problems()
        finder = ImageFinder(images, problems)
        if split is not None and split not in subsets(root):
            raise ValueError(f"{annotations}: no subset {split!r}; it has {shorten_list(subsets(root)) or 'none'}")
        is_video = root.find("image") is None and root.find("track") is not None
        if is_video:
            records = frame_records(root, annotations, finder, problems)
        else:
            records = image_records(root, annotations, split, finder, problems)
        check_records(records, name)
        self.finish_images(
            name, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            classes=declared_first(declared_classes(root), (n for r in records for n in r.names)),
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def is_cvat(file: Path) -> bool:
    """Whether a file has an element of CVAT at its beginning, which other files with <annotations> lack."""
    return EXPECTED.search(beginning(file)) is not None


def subsets_of(file: Path) -> tuple[list[str], int]:
    """The subsets of a project's export, and how many images have none; nothing of a file that can't be read."""
    try:
        root = read_cvat(str(file))
    except (ValueError, OSError):  # the reader reports it
        return [], 0
    return subsets(root), sum(not image.get("subset") for image in root.iterfind("image"))
