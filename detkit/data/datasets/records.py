"""Annotations of a whole split in a handful of flat arrays, and the checks every box goes through."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detkit.boxes import to_xywh
from detkit.data.datasets.checks import (
    FRACTION,
    LARGEST,
    box_problem,
    box_text,
    edges,
    in_first_pixel,
    mend,
)
from detkit.data.datasets.images import size_if_readable
from detkit.data.datasets.problems import CLIPPED, CLIPPED_A_PIXEL, DROPPED, MENDED, REPEATED, Problems

BadBoxes = Literal["drop", "clip", "error"]
ANY_CLASS = -1
"""Label of an ignore region that stands for every class (`ignore_classes`)."""
LARGEST_SIDE = 10**9
"""Pixels; a stated size beyond it is a slip."""
FRACTIONS_FROM = 0.05
"""Share of boxes within the first pixel from which a split is refused as fractions of the image."""


@dataclass(frozen=True)
class Annotation:
    """Boxes of one image, xyxy pixels of the image on disk, (G, 4) float32; labels (G,); ignore (G,) bool."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    is_ignore: NDArray[np.bool_]
    area: NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What evaluation measures against: the M boxes as the file has them, unusable ones included.

    ends (B,) where an image's boxes end, boxes (M, 4) float64 x, y, width, height, labels (M,), is_ignore
    (M,), area (M,) as annotated, trained (M,) whether the box is one of training's, too.
    """

    ends: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    is_ignore: NDArray[np.bool_]
    area: NDArray[np.float64]
    trained: NDArray[np.bool_]


@dataclass(frozen=True)
class Records:
    """B images and their N boxes. No Python object per image: forked loader workers share the pages.

    image_ids (B,), paths (all file names in one byte string, `path_ends` (B,) telling them apart),
    sizes (B, 2) height and width or -1 where unknown, ends (B,) where an image's boxes end, boxes (N, 4)
    float32 xyxy inside the image, labels (N,), is_ignore (N,), area (N,) as annotated. Training learns from
    these boxes; evaluation uses `truth`, or the same boxes where it is None.
    """

    image_ids: NDArray[np.int64]
    path_bytes: NDArray[np.uint8]
    path_ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ends: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    is_ignore: NDArray[np.bool_]
    area: NDArray[np.float64]
    truth: Truth | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> str:
        """File of an image."""
        start = self.path_ends[index - 1] if index else 0
        return os.fsdecode(bytes(self.path_bytes[start : self.path_ends[index]]))

    def annotation(self, index: int) -> Annotation:
        """Boxes of an image; views, not copies."""
        span = slice(self.ends[index - 1] if index else 0, self.ends[index])
        return Annotation(self.boxes[span], self.labels[span], self.is_ignore[span], self.area[span])

    def own_truth(self) -> Truth:
        """The boxes of training in the form of a truth."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return Truth(self.ends, boxes, self.labels, self.is_ignore, self.area, np.ones(len(boxes), bool))

    def content_hash(self) -> str:
        """Twelve hex digits, equal for equal training annotations; file names count, folders don't."""
        digest = hashlib.sha256()
        names = b"\0".join(os.fsencode(self.path(i).rpartition("/")[2]) for i in range(len(self)))
        digest.update(names)
        for array in (self.image_ids, self.ends, self.boxes, self.labels, self.is_ignore):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]

    def truth_hash(self) -> str:
        """Twelve hex digits, equal for equal annotations of the evaluation, areas included."""
        truth, digest = self.truth or self.own_truth(), hashlib.sha256()
        for array in (self.image_ids, truth.ends, truth.boxes, truth.labels, truth.is_ignore, truth.area):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]


class RecordsBuilder:
    """Takes images one by one, holds their boxes against the policy, and packs them."""

    def __init__(self, name: str, bad_boxes: BadBoxes) -> None:
        self.name, self.bad_boxes, self.problems = name, bad_boxes, Problems()
        self._images: list[tuple[int, bytes, int, int]] = []
        self._boxes: list[NDArray[np.float32]] = []
        self._rest: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self._truth: list[tuple[NDArray[Any], ...]] = []
        self._ids: dict[int, str] = {}
        self._fractions: list[str] = []
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
    ) -> None:
        """One image; size (height, width), (-1, -1) if unknown, when the file's header tells where boxes
        must end; boxes xyxy. source: what a message names.

        xywh: the same boxes as x, y, width, height where the file has them so, for an evaluation without a
        rounding error. Training gets the boxes inside the image; evaluation gets them all, as they are here.
        """
        source = source or path
        if image_id in self._ids:
            raise ValueError(f"{self.name}: image id {image_id} is used twice: {self._ids[image_id]} and {source}")
        self._ids[image_id] = source
        if max(size) > LARGEST_SIDE:
            raise ValueError(f"{self.name}: {source}: {size[1]}x{size[0]} pixels is not the size of an image")
        raw = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        own = to_xywh(raw) if xywh is None else np.asarray(xywh, dtype=np.float64).reshape(-1, 4)
        classes, ignored = np.asarray(labels, np.int64), np.asarray(is_ignore, bool)
        full = own[:, 2:].prod(axis=1) if area is None else np.asarray(area, dtype=np.float64)
        self._note_repeated(raw, classes, ignored, source)
        good, keep = self._check(raw, size_if_readable(path) if len(raw) and size[0] < 0 else size, source)
        sides = np.maximum(good[:, 2:] - good[:, :2], 0)
        measured = sides.prod(axis=1) if area is None else full[keep]
        self._images.append((image_id, os.fsencode(path), *size))
        self._boxes.append(good.astype(np.float32))
        self._rest.append((classes[keep], ignored[keep], measured))
        self._truth.append((own, classes, ignored, full, keep))

    def _check(self, raw: NDArray[np.float64], size: tuple[int, int], source: str) -> tuple[NDArray[np.float64], Any]:
        """Usable boxes, inside the image, and which of the given ones they are."""
        inside = raw.copy()
        if size[0] > 0:
            inside[:, 0::2] = inside[:, 0::2].clip(0, size[1])
            inside[:, 1::2] = inside[:, 1::2].clip(0, size[0])
        single = inside.clip(-LARGEST, LARGEST).astype(np.float32)
        sound = (np.abs(raw) < LARGEST).all(axis=1) & (raw[:, 2:] > 2).any(axis=1)
        sound &= (single[:, 2:] > single[:, :2]).all(axis=1)
        keep, mended = np.ones(len(raw), dtype=bool), np.zeros(len(raw), dtype=bool)
        for i in np.flatnonzero(~sound).tolist():
            if raw[i].any() and in_first_pixel(raw[i]) and not 0 < max(size) <= 8:
                self._first_pixel.append(f"{source}, {box_text(i, raw[i])}")
            if (problem := box_problem(raw[i], size)) is None:
                continue
            where = f"{source}, {box_text(i, raw[i])}: {problem}"
            if self.bad_boxes == "error":
                raise ValueError(f"{self.name}: {where}. bad_boxes: drop leaves such boxes out and lists them")
            if problem.startswith(FRACTION):
                self._fractions.append(where)
            elif self.bad_boxes == "clip" and mend(inside[i]):
                mended[i] = True
                self.problems.add(MENDED, where)
                continue
            keep[i] = False
            self.problems.add(DROPPED, where)
        beyond = np.where(keep & ~mended & np.isfinite(raw).all(axis=1), np.abs(inside - raw).max(axis=1, initial=0), 0)
        for i in np.flatnonzero(beyond > 0).tolist():
            # A pixel over the edge is a matter of counting from 0 or 1, or of rounding.
            kind = CLIPPED if beyond[i] > 1.0 else CLIPPED_A_PIXEL
            self.problems.add(kind, f"{source}, {box_text(i, raw[i])}: {edges(raw[i], size)}")
        return inside[keep], keep

    def _note_repeated(
        self, raw: NDArray[np.float64], labels: NDArray[Any], ignored: NDArray[Any], source: str
    ) -> None:
        """Counts boxes that are there before with the same class and flag."""
        rows = list(zip(map(tuple, raw.tolist()), labels.tolist(), ignored.tolist(), strict=True))
        if len(set(rows)) == len(rows):
            return
        first: dict[Any, int] = {}
        for i, row in enumerate(rows):
            if row in first:
                self.problems.add(REPEATED, f"{source}, {box_text(i, raw[i])} is box {first[row] + 1}")
            else:
                first[row] = i

    def paths(self) -> list[str]:
        """Files of the images so far."""
        return [os.fsdecode(path) for _, path, _, _ in self._images]

    def build(self) -> Records:
        """The packed arrays; ValueError if too many boxes are fractions of their image."""
        total = sum(len(t[0]) for t in self._truth)
        if len(self._fractions) > FRACTIONS_FROM * total or 0 < total == len(self._first_pixel):
            raise ValueError(
                f"{self.name}: {len(self._first_pixel)} of {total} boxes lie within the first pixel, so they seem to "
                f"be fractions of the image, not pixels; first: {self._first_pixel[0]}. Multiply x and width by the "
                "image's width, y and height by its height"
            )
        paths = [path for _, path, _, _ in self._images]
        ends = np.cumsum([len(b) for b in self._boxes], dtype=np.int64)
        labels = np.concatenate([*(r[0] for r in self._rest), np.zeros(0, np.int64)])
        ignored = np.concatenate([*(r[1] for r in self._rest), np.zeros(0, bool)])
        whole = len(labels) == total  # nothing was dropped: training and evaluation share these arrays
        return Records(
            image_ids=np.array([i for i, _, _, _ in self._images], dtype=np.int64),
            path_bytes=np.frombuffer(b"".join(paths), dtype=np.uint8),
            path_ends=np.cumsum([len(p) for p in paths], dtype=np.int64),
            sizes=np.array([(h, w) for _, _, h, w in self._images], dtype=np.int64).reshape(-1, 2),
            ends=ends,
            boxes=np.concatenate([*self._boxes, np.zeros((0, 4), np.float32)]),
            labels=labels,
            is_ignore=ignored,
            area=np.concatenate([*(r[2] for r in self._rest), np.zeros(0, np.float64)]),
            truth=Truth(
                ends=ends if whole else np.cumsum([len(t[0]) for t in self._truth], dtype=np.int64),
                boxes=np.concatenate([*(t[0] for t in self._truth), np.zeros((0, 4), np.float64)]),
                labels=labels if whole else np.concatenate([t[1] for t in self._truth]),
                is_ignore=ignored if whole else np.concatenate([t[2] for t in self._truth]),
                area=np.concatenate([*(t[3] for t in self._truth), np.zeros(0, np.float64)]),
                trained=np.concatenate([*(t[4] for t in self._truth), np.zeros(0, bool)]),
            ),
        )


ROUNDING = 1e-2
"""Pixels by which boxes in single precision may differ from the file's."""


def compared(records: Records) -> tuple[int, int]:
    """Objects of the file that training leaves out, and those that it has with another box."""
    truth, own = records.truth, records.own_truth()
    if truth is None:
        return 0, 0
    moved = (np.abs(truth.boxes[truth.trained] - own.boxes) > ROUNDING).any(axis=1) & ~own.is_ignore
    return int((~truth.trained & ~truth.is_ignore).sum()), int(moved.sum())
