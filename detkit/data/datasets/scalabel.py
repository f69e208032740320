"""JSON of Scalabel (doc.scalabel.ai), in which BDD100K is published."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import short
from detkit.data.datasets.entries import (
    declared_first,
    describe_other,
    found_export,
    has_ignore_flag,
    number_at,
    object_of,
    objects_at,
    size_at,
    text_at,
)
from detkit.data.datasets.file_formats import read_json_file
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.problems import NO_BOX, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree, Value

MARKS = re.compile(r'"(box2d|poly2d)":[\[{n]|^(\{"frames":)?\[\{(?=.*"name":").*"labels":\[', re.S)
CORNERS = ("x1", "y1", "x2", "y2")


@DATASETS.register()
class ScalabelDataset(DetectionDataset):
    """Boxes of a JSON file of Scalabel or BDD100K: a list of frames with `labels` of a category and a box2d.

    Labels without a box2d (lanes, areas) are not objects and are counted.

    Args:
        annotations: JSON file, a list of frames or an object with `frames` and `config`.
        images: folder of the images, with subfolders.
        class_names: the classes and their order; null takes the file's, or those in use in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        return found_export("ScalabelDataset", "Scalabel", place, MARKS, "a list of frames with labels")

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        problems = Problems()
        content = read_json_file(annotations)
        frames = content if isinstance(content, list) else content.get("frames") if isinstance(content, dict) else None
        if not isinstance(frames, list):
            raise ValueError(f"{annotations}: not a file of Scalabel: it is {describe_other(content)}")
        records = list(read_frames(frames, annotations, ImageFinder(images, problems), problems))
        check_records(records, annotations)
        classes = declared_first(declared(content, annotations), (n for r in records for n in r.names))
        self.finish_images(
            annotations, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            classes=classes, class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def declared(content: Value, path: str) -> list[str]:
    """The categories of the file's config, in order."""
    config = content.get("config") if isinstance(content, dict) else None
    if config is None:
        return []
    entries = objects_at(object_of(config, f"{path}: config"), "categories", path, "category")
    return [text_at(entry, "name", where) for where, entry in entries]


def read_frames(frames: list[Value], path: str, finder: ImageFinder, problems: Problems) -> Iterator[ImageRecord]:
    """The record of each frame."""
    for i, value in enumerate(frames, start=1):
        frame = object_of(value, f"{path}: frame {i}")
        name = text_at(frame, "name", f"{path}: frame {i}")
        boxes, names, ignore = [], [], []
        for where, label in objects_at(frame, "labels", f"{path}: {name}", "label"):
            if label.get("box2d") is None:
                problems.add(NO_BOX, f"{where}: {short(label.get('category'))}")
                continue
            values = object_of(label["box2d"], f"{where}: box2d")
            boxes.append([number_at(values, key, where) for key in CORNERS])
            names.append(text_at(label, "category", where))
            ignore.append(has_ignore_flag(label.get("attributes")))
        size, file = stated_size(frame), finder.find(name, path)
        yield ImageRecord(path=file, boxes=boxes, names=names, size=size, is_ignore=ignore, source=name)


def stated_size(frame: Tree) -> tuple[int, int]:
    """(height, width) as stated, or (-1, -1)."""
    size = frame.get("size")
    return size_at(size, "height", "width") if isinstance(size, dict) else (-1, -1)
