"""The annotations of a split, packed into flat arrays, and the builder that checks every box on its way in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from detkit.boxes import to_xywh
from detkit.data.datasets.box_checks import (
    FRACTION,
    LARGEST,
    box_problem,
    box_text,
    describe_overhang,
    in_first_pixel,
    swap_corners,
)
from detkit.data.datasets.images import upright_size
from detkit.data.datasets.problems import CLIPPED, CLIPPED_A_PIXEL, DROPPED, REPEATED, SWAPPED_CORNERS, Problems
from detkit.utils.types import Bools, Floats, Floats32, Ints

BadBoxes = Literal["drop", "clip", "error"]
ANY_CLASS = -1
"""Label of an ignore region that applies to every class (`ignore_classes`)."""
NO_ID = -(2**63)
"""Id of an object that has none in its file."""
LARGEST_SIDE = 10**9
"""Pixels; a larger stated size is a typo."""
FRACTIONS_FROM = 0.05
"""Fraction of boxes within the first pixel above which a split is refused as not in pixels."""
ROUNDING = 1e-2
"""Pixels by which boxes in single precision may differ from the file's."""
BoxTable = TypeVar("BoxTable", "Records", "Truth")


@dataclass(frozen=True)
class Annotation:
    """Boxes of one image, xyxy pixels of the image on disk, (G, 4) float32; labels (G,); ignore (G,) bool."""

    boxes: Floats32
    labels: Ints
    is_ignore: Bools
    area: Floats


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image with its objects, as a reader finds it in a file: what every format is brought to.

    path: of the image. boxes: one (xmin, ymin, xmax, ymax) in pixels for each object, as the file has them, unusable
    ones included. names: their classes. size: (height, width) as stated, or (-1, -1). is_ignore: whether each is an
    ignore region (crowd, difficult); empty for none. image_id: of the file; None numbers the images. area, xywh,
    source, ids: as in `RecordsBuilder.add`.
    """

    path: str
    boxes: Sequence[Sequence[float]] = ()
    names: Sequence[str] = ()
    size: tuple[int, int] = (-1, -1)
    is_ignore: Sequence[bool] = ()
    image_id: int | None = None
    area: Sequence[float] | None = None
    xywh: Sequence[Sequence[float]] | None = None
    source: str = ""
    ids: Sequence[int] | None = None


@dataclass(frozen=True)
class Truth:
    """Ground truth of the evaluation: the M boxes as the file has them, unusable ones included.

    ends (B,) where an image's boxes end, boxes (M, 4) float64 x, y, width, height, labels (M,), is_ignore
    (M,), area (M,) as annotated, trained (M,) whether training uses the box, too, ids (M,) of the file or NO_ID;
    nothing but a writer uses them.
    """

    ends: Ints
    boxes: Floats
    labels: Ints
    is_ignore: Bools
    area: Floats
    trained: Bools
    ids: Ints

    def rows(self, index: int) -> range:
        """Rows of the boxes of an image."""
        return range(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    @property
    def image_of(self) -> Ints:
        """(M,) index of the image of every box."""
        return image_of_rows(self.ends)


@dataclass(frozen=True)
class Records:
    """B images and their N boxes. No Python object per image: forked loader workers share the pages.

    image_ids (B,), paths (all file names in one byte string, `path_ends` (B,) separates them),
    sizes (B, 2) height and width or -1 where unknown, ends (B,) where an image's boxes end, boxes (N, 4)
    float32 xyxy inside the image, labels (N,), is_ignore (N,), area (N,) as annotated. Training learns from
    these boxes; evaluation uses `truth`.
    """

    image_ids: Ints
    path_bytes: NDArray[np.uint8]
    path_ends: Ints
    sizes: Ints
    ends: Ints
    boxes: Floats32
    labels: Ints
    is_ignore: Bools
    area: Floats
    truth: Truth

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> str:
        start = self.path_ends[index - 1] if index else 0
        return os.fsdecode(bytes(self.path_bytes[start : self.path_ends[index]]))

    def file_name(self, index: int) -> str:
        """Name of an image's file, without its folder."""
        return self.path(index).rpartition("/")[2]

    def annotation(self, index: int) -> Annotation:
        """Boxes of an image; views, not copies."""
        span = slice(self.ends[index - 1] if index else 0, self.ends[index])
        return Annotation(self.boxes[span], self.labels[span], self.is_ignore[span], self.area[span])

    def locate(self, row: int) -> tuple[int, int]:
        """Image of a row of `truth`, and the number of the box in it, from 1."""
        ends = self.truth.ends
        image = int(np.searchsorted(ends, row, side="right"))
        return image, row - (int(ends[image - 1]) if image else 0) + 1

    def training_truth(self) -> Truth:
        """The boxes of training in the form of a ground truth."""
        boxes = to_xywh(self.boxes.astype(np.float64))
        trained, no_ids = np.ones(len(boxes), bool), np.full(len(boxes), NO_ID)
        return Truth(self.ends, boxes, self.labels, self.is_ignore, self.area, trained, no_ids)

    def content_hash(self) -> str:
        """Twelve hex digits, equal for equal training annotations; file names count, folders don't."""
        names = b"\0".join(os.fsencode(self.file_name(i)) for i in range(len(self)))
        return _short_hash(names, self.image_ids, self.ends, self.boxes, self.labels, self.is_ignore)

    def truth_hash(self) -> str:
        """Twelve hex digits, equal for equal annotations of the evaluation, areas included."""
        t = self.truth
        return _short_hash(b"", self.image_ids, t.ends, t.boxes, t.labels, t.is_ignore, t.area)


def _short_hash(names: bytes, *arrays: Ints | Bools | Floats | Floats32) -> str:
    digest = hashlib.sha256(names)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def image_of_rows(ends: Ints) -> Ints:
    """Index of the image of every box. ends: (B,) where each image's boxes end."""
    images: Ints = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    return images


def select_boxes(table: BoxTable, rows: Ints | Bools, ends: Ints) -> BoxTable:
    """The table with the boxes at `rows` (indices or a mask) alone. ends: (B,) where each image's boxes end then."""
    columns = ("boxes", "labels", "is_ignore", "area", *(("trained", "ids") if isinstance(table, Truth) else ()))
    return replace(table, ends=ends, **{name: getattr(table, name)[rows] for name in columns})


def select_images(records: Records, indices: Sequence[int], name: str) -> Records:
    if len(set(indices)) != len(indices):
        raise ValueError(f"{name}: an image is selected twice")
    return take_images(records, indices)


def take_images(records: Records, indices: Sequence[int]) -> Records:
    """The images at `indices`, one of them maybe several times, under one id."""
    chosen = np.asarray(indices, np.int64)
    path_bytes, path_ends = _pack([os.fsencode(records.path(i)) for i in indices])
    return replace(
        select_boxes(records, *_rows(records.ends, chosen)),
        image_ids=records.image_ids[chosen],
        path_bytes=path_bytes,
        path_ends=path_ends,
        sizes=records.sizes[chosen],
        truth=select_boxes(records.truth, *_rows(records.truth.ends, chosen)),
    )


def join_records(parts: Sequence[Records]) -> Records:
    """The images of all parts, one after the other."""
    truths = [part.truth for part in parts]
    ends = _joined_ends([t.ends for t in truths], [len(t.labels) for t in truths])
    truth = Truth(**_joined(truths, "trained", "ids"), ends=ends)
    return Records(
        **_joined(parts, "image_ids", "path_bytes", "sizes"),
        path_ends=_joined_ends([part.path_ends for part in parts], [len(part.path_bytes) for part in parts]),
        ends=_joined_ends([part.ends for part in parts], [len(part.labels) for part in parts]),
        truth=truth,
    )


def _joined(tables: Sequence[Records] | Sequence[Truth], *more: str) -> dict[str, NDArray[Any]]:
    """The columns of the boxes, and more of them, of all tables."""
    names = ("boxes", "labels", "is_ignore", "area", *more)
    return {name: np.concatenate([getattr(table, name) for table in tables]) for name in names}


def _joined_ends(ends: Sequence[Ints], lengths: Sequence[int]) -> Ints:
    """Where things end in joined arrays. lengths: of the array of each part."""
    starts = np.cumsum([0, *lengths[:-1]])
    return np.concatenate([part + start for part, start in zip(ends, starts, strict=True)])


def _rows(ends: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Row numbers of the boxes of some images, and where each of these images ends then."""
    starts = np.concatenate((np.zeros(1, np.int64), ends))[chosen]
    counts = ends[chosen] - starts
    new_ends = np.cumsum(counts)
    shift = np.repeat(starts - (new_ends - counts), counts)
    return np.arange(int(counts.sum()), dtype=np.int64) + shift, new_ends


def _pack(texts: Sequence[bytes]) -> tuple[NDArray[np.uint8], Ints]:
    return np.frombuffer(b"".join(texts), dtype=np.uint8), _ends(texts)


def _ends(parts: Iterable[bytes | Floats | Floats32]) -> Ints:
    return np.cumsum([len(part) for part in parts], dtype=np.int64)


def count_differences(records: Records) -> tuple[int, int]:
    """Objects of the file that training leaves out, and those whose box differs in training."""
    truth, training = records.truth, records.training_truth()
    moved = (np.abs(truth.boxes[truth.trained] - training.boxes) > ROUNDING).any(axis=1) & ~training.is_ignore
    return int((~truth.trained & ~truth.is_ignore).sum()), int(moved.sum())


class RecordsBuilder:
    """Takes images one by one, checks their boxes as `bad_boxes` says, and packs them."""

    def __init__(self, name: str, bad_boxes: BadBoxes) -> None:
        self.name, self.bad_boxes, self.problems = name, bad_boxes, Problems()
        self._images: list[tuple[int, bytes, int, int]] = []
        self._training: list[tuple[Floats32, Ints, Bools, Floats]] = []
        self._truth: list[tuple[Floats, Ints, Bools, Floats, Bools, Ints]] = []
        self._sources: dict[int, str] = {}
        self._fractions = 0
        self._first_pixel: list[str] = []

    def add(
        self,
        image_id: int,
        path: str,
        size: tuple[int, int],
        boxes: Sequence[Sequence[float]],
        labels: Sequence[int],
        is_ignore: Sequence[bool],
        area: Sequence[float] | None = None,
        source: str | None = None,
        xywh: Sequence[Sequence[float]] | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        """Adds one image. Training gets its boxes inside the image; evaluation gets them all, as they are here.

        Args:
            size: (height, width); (-1, -1) if unknown, when the header of the file gives the limits of its boxes.
            boxes: xyxy pixels.
            area: as annotated; None takes the boxes'.
            source: what messages call the image; None is its path.
            xywh: the same boxes as x, y, width, height where the file has them so, for an evaluation without
                rounding errors.
            ids: of the boxes in the file, NO_ID for those without.
        """
        source = source or path
        if image_id in self._sources:
            raise ValueError(f"{self.name}: image id {image_id} is used twice: {self._sources[image_id]} and {source}")
        self._sources[image_id] = source
        if max(size) > LARGEST_SIDE:
            raise ValueError(f"{self.name}: {source}: {size[1]}x{size[0]} pixels is not the size of an image")
        xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        file_boxes = to_xywh(xyxy) if xywh is None else np.asarray(xywh, dtype=np.float64).reshape(-1, 4)
        classes, ignored = np.asarray(labels, np.int64), np.asarray(is_ignore, bool)
        areas = file_boxes[:, 2:].prod(axis=1) if area is None else np.asarray(area, dtype=np.float64)
        self._count_repeated(xyxy, classes, ignored, source)
        inside, keep = self._check(xyxy, upright_size(path) if len(xyxy) and size[0] < 0 else size, source)
        sides = np.maximum(inside[:, 2:] - inside[:, :2], 0)
        training_areas = sides.prod(axis=1) if area is None else areas[keep]
        self._images.append((image_id, os.fsencode(path), *size))
        self._training.append((inside.astype(np.float32), classes[keep], ignored[keep], training_areas))
        object_ids = np.full(len(xyxy), NO_ID) if ids is None else np.asarray(ids, np.int64)
        self._truth.append((file_boxes, classes, ignored, areas, keep, object_ids))

    def _check(self, boxes: Floats, size: tuple[int, int], source: str) -> tuple[Floats, Bools]:
        """Usable boxes, inside the image, and which of the given ones they are."""
        inside = boxes.copy()
        if size[0] > 0:
            inside[:, 0::2] = inside[:, 0::2].clip(0, size[1])
            inside[:, 1::2] = inside[:, 1::2].clip(0, size[0])
        single = inside.clip(-LARGEST, LARGEST).astype(np.float32)
        # Most boxes pass these few comparisons; only the others are looked at one by one.
        plausible = (np.abs(boxes) < LARGEST).all(axis=1) & (boxes[:, 2:] > 2).any(axis=1)
        plausible &= (single[:, 2:] > single[:, :2]).all(axis=1)
        keep, swapped = np.ones(len(boxes), dtype=bool), np.zeros(len(boxes), dtype=bool)
        for i in np.flatnonzero(~plausible).tolist():
            where = f"{source}, {box_text(i, boxes[i])}"
            if boxes[i].any() and in_first_pixel(boxes[i]) and not 0 < max(size) <= 8:
                self._first_pixel.append(where)
            if (problem := box_problem(boxes[i], size)) is None:
                continue
            if self.bad_boxes == "error":
                raise ValueError(
                    f"{self.name}: {where}: {problem}. bad_boxes: drop leaves such boxes out and lists them"
                )
            if problem.startswith(FRACTION):
                self._fractions += 1
            elif self.bad_boxes == "clip" and swap_corners(inside[i]):
                swapped[i] = True
                self.problems.add(SWAPPED_CORNERS, f"{where}: {problem}")
                continue
            keep[i] = False
            self.problems.add(DROPPED, f"{where}: {problem}")
        checked = keep & ~swapped & np.isfinite(boxes).all(axis=1)
        overhang = np.where(checked, np.abs(inside - boxes).max(axis=1, initial=0), 0)
        for i in np.flatnonzero(overhang > 0).tolist():
            # A pixel over the edge comes from counting from 0 or 1, or from rounding.
            kind = CLIPPED if overhang[i] > 1.0 else CLIPPED_A_PIXEL
            self.problems.add(kind, f"{source}, {box_text(i, boxes[i])}: {describe_overhang(boxes[i], size)}")
        return inside[keep], keep

    def _count_repeated(self, boxes: Floats, labels: Ints, ignored: Bools, source: str) -> None:
        """Counts boxes that are listed before with the same class and flag."""
        rows = list(zip(map(tuple, boxes.tolist()), labels.tolist(), ignored.tolist(), strict=True))
        if len(set(rows)) == len(rows):
            return
        first: dict[object, int] = {}
        for i, row in enumerate(rows):
            if first.setdefault(row, i) != i:
                self.problems.add(REPEATED, f"{source}, {box_text(i, boxes[i])} is box {first[row] + 1}")

    def build(self) -> Records:
        """The packed arrays; ValueError if too many boxes are fractions of their image."""
        total = sum(len(truth[0]) for truth in self._truth)
        if self._fractions > FRACTIONS_FROM * total or 0 < total == len(self._first_pixel):
            raise ValueError(
                f"{self.name}: {len(self._first_pixel)} of {total} boxes lie within the first pixel, so they seem to "
                f"be fractions of the image, not pixels; first: {self._first_pixel[0]}. Multiply x and width by the "
                "image's width, y and height by its height"
            )
        no_labels, no_flags, no_areas = np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0)
        nothing = (np.zeros((0, 4), np.float32), no_labels, no_flags, no_areas)
        boxes, labels, is_ignore, area = map(np.concatenate, zip(nothing, *self._training, strict=True))
        no_truth = (np.zeros((0, 4)), no_labels, no_flags, no_areas, no_flags, no_labels)
        truth = Truth(_ends(t[0] for t in self._truth), *map(np.concatenate, zip(no_truth, *self._truth, strict=True)))
        ends = _ends(t[0] for t in self._training)
        if len(labels) == total:  # nothing was dropped: training and evaluation share these arrays
            truth = replace(truth, ends=ends, labels=labels, is_ignore=is_ignore)
        path_bytes, path_ends = _pack([path for _, path, _, _ in self._images])
        return Records(
            image_ids=np.array([i for i, _, _, _ in self._images], dtype=np.int64),
            path_bytes=path_bytes,
            path_ends=path_ends,
            sizes=np.array([(h, w) for _, _, h, w in self._images], dtype=np.int64).reshape(-1, 2),
            ends=ends,
            boxes=boxes,
            labels=labels,
            is_ignore=is_ignore,
            area=area,
            truth=truth,
        )
