"""Detections as data sets: YOLO, CSV and VOC by the writers of detkit's data, FiftyOne's JSON, and crops."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL.Image import Image

from detkit.data.datasets.base import DetectionDataset, Problems, RecordsBuilder
from detkit.data.writers.csv import write_csv
from detkit.data.writers.names import UNSAFE
from detkit.data.writers.target import Images, Written
from detkit.data.writers.voc import write_voc
from detkit.data.writers.yolo import write_yolo
from detkit.predict.detections import Detections
from detkit.predict.sources import unique_names
from detkit.structures import ClassMap
from detkit.utils.outputs import Ledger, foreign_files_error, short_name, write_png, write_text
from detkit.utils.types import Floats, Tree

LINKS: Images = "symlink" if os.name == "posix" else "copy"
"""How images come into the folders of formats that need them beside the annotations."""
SETS: dict[str, Callable[..., Written]] = {
    "yolo": partial(write_yolo, images=LINKS),
    "csv": partial(write_csv, images="reference"),
    "voc": partial(write_voc, images=LINKS),
}
"""Format -> its writer."""


@dataclass(frozen=True)
class Saved:
    """What is kept of an image until all are done: file, (height, width), boxes x, y, width, height, labels, scores."""

    file: Path
    size: tuple[int, int]
    xywh: Floats
    labels: list[int]
    scores: list[float]


def saved(file: Path, image: Image, detections: Detections) -> Saved:
    """What the data sets need of an image."""
    boxes = detections.boxes.double().cpu().numpy()
    xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    return Saved(file, (image.height, image.width), xywh, detections.labels.tolist(), detections.scores.tolist())


class PredictedDataset(DetectionDataset):
    """Detections as a data set, for the writers. scores: of the boxes, which a person's annotations lack."""

    def __init__(self, classes: ClassMap, images: list[Saved]) -> None:
        builder = RecordsBuilder("detections", "drop")
        for number, image in enumerate(images, start=1):
            corners = np.concatenate((image.xywh[:, :2], image.xywh[:, :2] + image.xywh[:, 2:]), axis=1).tolist()
            ignored = [False] * len(image.labels)
            path = os.path.abspath(image.file)
            builder.add(number, path, image.size, corners, image.labels, ignored, xywh=image.xywh.tolist())
        self.name, self.classes, self.problems, self.records = "detections", classes, Problems(), builder.build()
        self.scores = np.array([score for image in images for score in image.scores], dtype=np.float64)


def write_sets(formats: list[str], output: Path, classes: ClassMap, images: list[Saved], ledger: Ledger) -> list[str]:
    """Writes the data sets into folders of their format's name; returns what a format can't hold, in words."""
    notes = []
    for name in formats:
        if name in SETS:
            written = SETS[name]({"all": PredictedDataset(classes, images)}, output / name)
            kinds = [kind.counted(found.count) for kind, found in written.problems if not kind.quiet]
            notes += [f"{name}: {text}" for text in kinds]
            ledger.adopt(path for path in own_files(output, name) if not (output / path).is_symlink())
    if "fiftyone" in formats:
        write_fiftyone(output / "fiftyone", classes, images, ledger)
    return notes


def write_fiftyone(folder: Path, classes: ClassMap, images: list[Saved], ledger: Ledger) -> None:
    """A `FiftyOneImageDetectionDataset`: data.json (name -> path of the image) and labels.json."""
    names = unique_stems(images)
    labels: Tree = {}
    for name, image in zip(names, images, strict=True):
        height, width = image.size
        boxes = (image.xywh / [width, height, width, height]).tolist()
        labels[name] = [
            {"label": label, "bounding_box": box, "confidence": score}
            for label, box, score in zip(image.labels, boxes, image.scores, strict=True)
        ] or None
    files = {name: os.path.abspath(image.file) for name, image in zip(names, images, strict=True)}
    content = {"classes": list(classes.names), "labels": labels}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "data.json", json.dumps(files, indent=1), ledger=ledger)
    write_text(folder / "labels.json", json.dumps(content, indent=1), ledger=ledger)


def unique_stems(images: list[Saved]) -> list[str]:
    """A name for each image, by its file, with a number if another one has it."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in unique_names((i.file for i in images), "")]


def write_crops(folder: Path, name: str, image: Image, detections: Detections, ledger: Ledger) -> int:
    """Writes the pixels of each detection as CLASS/NAME-NUMBER.png; returns how many there are.

    A box is rounded outwards and clipped; one without a pixel in the image is left out.
    """
    count = 0
    for number, detection in enumerate(detections, start=1):
        x1, y1, x2, y2 = detection.box
        region = (max(0, math.floor(x1)), max(0, math.floor(y1)), math.ceil(x2), math.ceil(y2))
        region = (*region[:2], min(image.width, region[2]), min(image.height, region[3]))
        if region[0] >= region[2] or region[1] >= region[3]:
            continue
        place = folder / class_folder(detection.name) / short_name(name, f"-{number}.png")
        write_png(place, image.crop(region).save, ledger=ledger)
        count += 1
    return count


def class_folder(name: str) -> str:
    """A class's name as that of a folder."""
    return short_name(UNSAFE.sub("_", name).replace("/", "_").strip(" .") or "_", "")


def own_files(output: Path, name: str) -> Iterator[Path]:
    """The files below a folder of the output folder, relative to it."""
    for parent, _, files in os.walk(output / name):
        yield from (Path(parent, file).relative_to(output) for file in sorted(files))


def clear_own(output: Path, formats: list[str], ledger: Ledger, *, check: bool = False) -> None:
    """Deletes what an earlier `detkit predict` wrote in the folders of formats; ForeignFileError if more is there.

    check: raise only.
    """
    folders = [name for name in formats if name != "coco"]
    found = [path for name in folders for path in own_files(output, name)]
    foreign = [output / path for path in found if not (output / path).is_symlink() and not ledger.owns(path)]
    foreign += [output / name for name in folders if (output / name).is_symlink() or (output / name).is_file()]
    if foreign:
        raise foreign_files_error("--output", foreign)
    if check:
        return
    for name in folders:
        shutil.rmtree(output / name, ignore_errors=True)
    if found:
        ledger.forget(found)
