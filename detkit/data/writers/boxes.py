"""What a writer gets of an image: its boxes as the file has them, unusable ones included."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detkit.boxes import to_xyxy
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_checks import box_problem
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import ANY_CLASS, NO_ID
from detkit.data.writers.kinds import (
    IGNORE_AS_OBJECT,
    NO_AREA,
    NO_CLASS,
    NO_IDS,
    NO_IGNORE,
    NO_OBJECT_IDS,
    NOT_FINITE,
    ONE_PIXEL,
)
from detkit.utils.console import printable
from detkit.utils.types import Floats


@dataclass(frozen=True)
class WrittenBox:
    """An object: x, y, width and height in pixels, area as annotated; label -1 for an ignore region of any class.

    is_mask: whether the area is not the box's. object_id: of the file, None for none. score: of a detection.
    """

    label: int
    xywh: tuple[float, float, float, float]
    area: float
    is_ignore: bool
    is_mask: bool = False
    object_id: int | None = None
    score: float | None = None

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """xmin, ymin, xmax, ymax."""
        x, y, width, height = self.xywh
        return x, y, x + width, y + height

    @property
    def pixels(self) -> tuple[float, float, float, float]:
        """xmin, ymin, xmax, ymax as in Pascal VOC: the first pixel is 1, and the last one belongs to the box."""
        x, y, width, height = self.xywh
        return x + 1, y + 1, last_pixel(x, width), last_pixel(y, height)

    @property
    def is_thin(self) -> bool:
        """Whether a side is a pixel or less, so that its first pixel is its last one."""
        return any(0 < side <= 1 for side in self.xywh[2:])

    @property
    def is_of_any_class(self) -> bool:
        return self.label == ANY_CLASS


def last_pixel(low: float, side: float) -> float:
    """The last pixel of a side, counted from 1; its first one for a side of a pixel or less."""
    return low + 1 if 0 <= side <= 1 else low + side


@dataclass(frozen=True)
class WrittenImage:
    """An image: where it is in its data set, its id, (height, width) or (-1, -1), and its boxes."""

    dataset: DetectionDataset
    index: int
    image_id: int
    size: tuple[int, int]
    boxes: tuple[WrittenBox, ...]

    @property
    def path(self) -> str:
        return self.dataset.records.path(self.index)

    def content(self) -> str | bytes:
        """The path of the image's file, or the bytes of one: of a shard as they are, a PNG of what is drawn."""
        if not self.dataset.is_drawn(self.index):
            return self.dataset.image_source(self.index)
        file = io.BytesIO()
        self.dataset.load_image(self.index).save(file, format="png")
        return file.getvalue()

    def where(self, number: int) -> str:
        """A box of the image for messages. number: from 1."""
        return f"{printable(os.path.basename(self.path))}, box {number}"


def images_of(dataset: DetectionDataset) -> Iterator[WrittenImage]:
    """Every image of a data set with the boxes of its file, in order."""
    records = dataset.records
    start = 0
    for index, end in enumerate(records.truth.ends.tolist()):
        size = size_of(dataset, index)
        boxes = tuple(box_of(dataset, row, size) for row in range(start, end))
        yield WrittenImage(dataset, index, int(records.image_ids[index]), size, boxes)
        start = end


def size_of(dataset: DetectionDataset, index: int) -> tuple[int, int]:
    """(height, width) as stated; where it is not, of the image; (-1, -1) if that can't be read either."""
    height, width = dataset.records.sizes[index].tolist()
    if height > 0:
        return height, width
    try:
        return dataset.image_size(index)
    except (ValueError, OSError):
        return -1, -1


def box_of(dataset: DetectionDataset, row: int, size: tuple[int, int]) -> WrittenBox:
    """The box at a row of the truth, so that a reader finds it usable exactly if it is here."""
    truth = dataset.records.truth
    xywh, area = truth.boxes[row].copy(), float(truth.area[row])
    is_mask = not np.isclose(area, xywh[2:].prod(), rtol=1e-6, equal_nan=True)
    if not truth.trained[row]:
        unpad(xywh, size)
    x, y, width, height = xywh.tolist()
    label, is_ignore, object_id = int(truth.labels[row]), bool(truth.is_ignore[row]), int(truth.ids[row])
    known = None if object_id == NO_ID else object_id
    score = None if dataset.scores is None else float(dataset.scores[row])
    return WrittenBox(label, (x, y, width, height), area, is_ignore, bool(is_mask), known, score)


def unpad(xywh: Floats, size: tuple[int, int]) -> None:
    """Takes the pixel from a side that has it only because the last pixel counts, as of a VOC box with xmin = xmax.

    A reader of another format would take such a box, which has no area as published, for a line of pixels.
    """
    if box_problem(to_xyxy(xywh[None])[0], size) is None:
        xywh[2:][xywh[2:] == 1.0] = 0.0


Ignored = Literal["drop", "objects"]
"""What becomes of ignore regions in a format without them."""


def count_lost_fields(image: WrittenImage, number: int, problems: Problems) -> None:
    """Counts what a format loses that has neither ids nor areas. number: of the image, from 1."""
    if image.image_id != number:
        problems.add(NO_IDS, f"{printable(os.path.basename(image.path))}: {image.image_id}")
    for k, box in enumerate(image.boxes, start=1):
        if box.is_mask:
            problems.add(NO_AREA, image.where(k))
    count_lost_ids(image, problems)


def count_lost_ids(image: WrittenImage, problems: Problems) -> None:
    """Counts the ids of objects, for a format without them."""
    for k, box in enumerate(image.boxes, start=1):
        if box.object_id is not None:
            problems.add(NO_OBJECT_IDS, f"{image.where(k)}: {box.object_id}")


def count_thin(image: WrittenImage, problems: Problems) -> None:
    """Counts boxes that a format of whole pixels, as VOC, makes a pixel wide or high."""
    for k, box in enumerate(image.boxes, start=1):
        if box.is_thin:
            problems.add(ONE_PIXEL, image.where(k))


def usable_boxes(image: WrittenImage, problems: Problems) -> Iterator[tuple[int, WrittenBox]]:
    """The boxes that a format with ignore regions can hold, with their numbers from 1; counts the others."""
    for k, box in enumerate(image.boxes, start=1):
        if not np.isfinite(box.xywh).all():
            problems.add(NOT_FINITE, image.where(k))
        elif box.is_of_any_class:
            problems.add(NO_CLASS, image.where(k))
        else:
            yield k, box


def object_boxes(image: WrittenImage, problems: Problems, ignored: Ignored) -> Iterator[tuple[int, WrittenBox]]:
    """The same for a format without ignore regions: they are left out, or become objects."""
    for k, box in usable_boxes(image, problems):
        if box.is_ignore:
            problems.add(NO_IGNORE if ignored == "drop" else IGNORE_AS_OBJECT, image.where(k))
        if not box.is_ignore or ignored == "objects":
            yield k, box


def number_text(value: float) -> str:
    """A number as short as it can be read back."""
    return repr(value).removesuffix(".0")
