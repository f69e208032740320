"""Images of the report: those with the most mistakes, and the most confident mistakes, beside the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.doctor.pictures import visible_part
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.errors import CORRECT, IGNORED, Judged
from detkit.utils.console import plural, printable
from detkit.utils.types import Bools, Ints, Tree
from detkit.visualize.page import jpeg_uri

WORST, CONFIDENT = 8, 12
"""Pictures of each kind."""
SIDE = 400
"""Pixels of the longer side."""
MOST_BYTES = 3_000_000
"""Of all pictures of a report."""
MOST_BOXES = 100
"""Boxes that are drawn in a picture, the best-scoring ones."""


@dataclass(frozen=True)
class Thumbnail:
    """An image or a part of it, made small. left, top: of the part; factor: its pixels to those of the picture."""

    uri: str
    width: int
    height: int
    left: float
    top: float
    factor: float

    @classmethod
    def of(cls, image: Image.Image, side: int, region: Sequence[float] | None = None, quality: int = 80) -> Thumbnail:
        """region: left, top, right, bottom; None for all of the image. A whole image is never enlarged."""
        left, top, right, bottom = region or (0.0, 0.0, float(image.width), float(image.height))
        factor = side / max(right - left, bottom - top)
        factor = factor if region else min(1.0, factor)
        size = max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor))
        small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
        return cls(jpeg_uri(small, quality), *size, left, top, factor)

    def scaled(self, box: NDArray[np.floating]) -> list[float]:
        """A box of the image in pixels of the picture."""
        offset = (self.left, self.top) * 2
        return [round((float(v) - o) * self.factor, 1) for v, o in zip(box, offset, strict=True)]


@dataclass
class Gallery:
    """Makes the pictures, as long as there is room for their bytes. unread: images that can't be read."""

    dataset: DetectionDataset
    truth: GroundTruth
    detections: Shard
    judged: Judged
    used: Bools
    """(N,) detections that count at the thresholds of their classes."""

    def __post_init__(self) -> None:
        self.left = MOST_BYTES
        self.unread: list[str] = []
        order = np.argsort(self.truth.image_ids)
        self.image_of = np.repeat(order, self.detections.counts)[self.judged.rows]
        """(N,) index in the data set of the image of every detection."""
        rows = self.judged.objects
        self.image_of_object = np.searchsorted(self.truth.offsets, rows, side="right") - 1
        matched = self.used & (self.judged.kind == CORRECT)
        self.is_found = np.zeros(len(rows), bool)
        self.is_found[self.judged.object[matched]] = True
        self.wrong = self.used & (self.judged.kind != CORRECT)

    def mistakes(self) -> tuple[Ints, Ints]:
        """(B,) wrong detections and missed objects of every image, at the thresholds."""
        count = len(self.truth.image_ids)
        missed = np.bincount(self.image_of_object[~self.is_found], minlength=count)
        return np.bincount(self.image_of[self.wrong], minlength=count), missed

    def worst(self, most: int = WORST) -> list[Tree]:
        """The images with the most mistakes."""
        wrong, missed = self.mistakes()
        order = np.argsort(-(wrong + missed), kind="stable")
        chosen = (i for i in order.tolist() if wrong[i] + missed[i])
        made = (
            self.picture(
                i, np.flatnonzero(self.used & (self.image_of == i)),
                f"{plural(int(wrong[i]), 'wrong detection')}, {plural(int(missed[i]), 'missed object')}",
            )
            for i in chosen
        )  # fmt: skip
        return first_of(made, most)

    def confident(self, most: int = CONFIDENT) -> list[Tree]:
        """The wrong detections of the highest scores, one of an image, in what surrounds them."""
        kind = self.judged.kind
        rows = np.flatnonzero((kind != CORRECT) & (kind != IGNORED))
        rows = rows[np.argsort(-self.judged.scores[rows], kind="stable")]
        _, first = np.unique(self.image_of[rows], return_index=True)
        made = (
            self.picture(int(self.image_of[row]), np.array([row]), self.what_is_wrong(row), zoom=True)
            for row in rows[np.sort(first)].tolist()
        )
        return first_of(made, most)

    def what_is_wrong(self, row: int) -> str:
        """A wrong detection in words."""
        judged, names = self.judged, self.dataset.classes.names
        kind, about = str(judged.kind[row]), int(judged.object[row])
        name = names[judged.truth_labels[about]] if about >= 0 else ""
        reasons = {
            "classification": f"the object is of the class {name}, IoU {judged.iou[row]:.2f}",
            "localisation": f"the box does not fit, IoU {judged.iou[row]:.2f}",
            "both": "wrong class, and the box does not fit",
            "duplicate": "a better detection has the object",
            "background": "there is no object",
        }
        return f"{names[judged.labels[row]]} {judged.scores[row]:.2f}: {reasons[kind]}"

    def picture(self, i: int, rows: Ints, caption: str, *, zoom: bool = False) -> Tree | None:
        """An image of the data set with its objects and detections `rows`; None if it can't be made."""
        if self.left <= 0:
            return None
        name = printable(self.dataset.records.file_name(i) or f"image {self.truth.image_ids[i]}")
        boxes = self.detections.boxes[self.judged.rows[rows]]
        try:
            image = self.dataset.checked_image(i)
            region = visible_part(image.size, [tuple(map(float, box)) for box in boxes]) if zoom else None  # type: ignore[misc]
            thumbnail = Thumbnail.of(image, SIDE, region)
        except (ValueError, OSError):
            self.unread.append(name)
            return None
        self.left -= len(thumbnail.uri)
        names, judged = self.dataset.classes.names, self.judged
        objects = np.flatnonzero(self.image_of_object == i)
        shown = rows[np.argsort(-judged.scores[rows], kind="stable")][:MOST_BOXES]
        return {
            "name": name,
            "caption": caption,
            "image": thumbnail.uri,
            "width": thumbnail.width,
            "height": thumbnail.height,
            "truth": [
                {
                    "box": thumbnail.scaled(self.truth.boxes[judged.objects[n]]),
                    "label": names[judged.truth_labels[n]],
                    "correct": bool(self.is_found[n]),
                }
                for n in objects[:MOST_BOXES].tolist()
            ],
            "detections": [
                {
                    "box": thumbnail.scaled(self.detections.boxes[judged.rows[n]]),
                    "label": names[judged.labels[n]],
                    "score": round(float(judged.scores[n]), 3),
                    "correct": bool(judged.kind[n] == CORRECT),
                }
                for n in shown.tolist()
            ],
        }


def first_of(pictures: Iterable[Tree | None], most: int) -> list[Tree]:
    """The first pictures that could be made, at most as many attempts that fail again."""
    made: list[Tree] = []
    failed = 0
    for picture in pictures:
        if picture is None:
            failed += 1
        else:
            made.append(picture)
        if len(made) == most or failed == most:
            break
    return made
