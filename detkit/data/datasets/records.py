"""Annotations of a whole split in a handful of flat arrays, and the checks every box goes through."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

BadBoxes = Literal["drop", "clip", "error"]
log = logging.getLogger("detkit")
NAMED = 20
"""Files named in one message; the rest is counted."""


@dataclass(frozen=True)
class Annotation:
    """Boxes of one image, xyxy pixels of the image on disk, (G, 4) float32; labels (G,); ignore (G,) bool."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    is_ignore: NDArray[np.bool_]
    area: NDArray[np.float64]


@dataclass(frozen=True)
class Records:
    """B images and their N boxes. No Python object per image: forked loader workers share the pages.

    image_ids (B,), paths (all file names in one byte string, `path_ends` (B,) telling them apart),
    sizes (B, 2) height and width or -1 where unknown, ends (B,) where an image's boxes end, boxes (N, 4)
    float32 xyxy, labels (N,), is_ignore (N,), area (N,) as annotated.
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

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> str:
        """File of an image."""
        start = self.path_ends[index - 1] if index else 0
        return bytes(self.path_bytes[start : self.path_ends[index]]).decode()

    def annotation(self, index: int) -> Annotation:
        """Boxes of an image; views, not copies."""
        span = slice(self.ends[index - 1] if index else 0, self.ends[index])
        return Annotation(self.boxes[span], self.labels[span], self.is_ignore[span], self.area[span])

    def content_hash(self) -> str:
        """Twelve hex digits, equal for equal annotations; file names count, folders don't."""
        digest = hashlib.sha256()
        names = "\0".join(self.path(i).rpartition("/")[2] for i in range(len(self)))
        digest.update(names.encode())
        for array in (self.image_ids, self.ends, self.boxes, self.labels, self.is_ignore):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]


@dataclass
class Problems:
    """What was wrong with boxes: file -> sentences."""

    dropped: dict[str, list[str]] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)

    @property
    def dropped_count(self) -> int:
        return sum(map(len, self.dropped.values()))

    def report(self, name: str) -> None:
        """Warns of dropped boxes file by file, and counts the clipped ones."""
        for file, sentences in self.dropped.items():
            for sentence in sentences:
                log.warning("%s: %s: dropped a box: %s", name, file, sentence)
        if self.clipped:
            log.info(
                "%s: %d boxes in %d images reached over the image's edge and were clipped",
                name, sum(self.clipped.values()), len(self.clipped),
            )  # fmt: skip


class RecordsBuilder:
    """Takes images one by one, holds their boxes against the policy, and packs them."""

    def __init__(self, name: str, bad_boxes: BadBoxes) -> None:
        self.name, self.bad_boxes, self.problems = name, bad_boxes, Problems()
        self._images: list[tuple[int, str, int, int]] = []
        self._boxes: list[NDArray[np.float32]] = []
        self._rest: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self._ids: dict[int, str] = {}

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
    ) -> None:
        """One image; size (height, width), (-1, -1) if unknown; boxes xyxy. source: what a message names."""
        source = source or path
        if image_id in self._ids:
            raise ValueError(f"{self.name}: image id {image_id} is used twice: {self._ids[image_id]} and {source}")
        self._ids[image_id] = source
        raw = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        good, keep = self._check(raw, size, source)
        sides = np.maximum(good[:, 2:] - good[:, :2], 0)
        measured = sides.prod(axis=1) if area is None else np.asarray(area, dtype=np.float64)[keep]
        self._images.append((image_id, path, *size))
        self._boxes.append(good.astype(np.float32))
        self._rest.append((np.asarray(labels, np.int64)[keep], np.asarray(is_ignore, bool)[keep], measured))

    def _check(self, raw: NDArray[np.float64], size: tuple[int, int], source: str) -> tuple[NDArray[np.float64], Any]:
        """Usable boxes, inside the image, and which of the given ones they are."""
        inside = raw.copy()
        if size[0] > 0:
            inside[:, 0::2] = inside[:, 0::2].clip(0, size[1])
            inside[:, 1::2] = inside[:, 1::2].clip(0, size[0])
        keep, mended = np.ones(len(raw), dtype=bool), np.zeros(len(raw), dtype=bool)
        for i, box in enumerate(raw):
            problem = box_problem(box, size)
            if problem is None:
                continue
            text = f"box {i + 1} {[round(float(v), 2) for v in box]}: {problem}"
            if self.bad_boxes == "error":
                raise ValueError(f"{self.name}: {source}: {text}. bad_boxes: drop leaves such boxes out and lists them")
            if self.bad_boxes == "clip" and np.isfinite(box).all():
                fixed = inside[i]
                fixed[:] = (*np.minimum(fixed[:2], fixed[2:]), *np.maximum(fixed[:2], fixed[2:]))
                if (fixed[2:] > fixed[:2]).all():
                    mended[i] = True
                    continue
            keep[i] = False
            self.problems.dropped.setdefault(source, []).append(text)
        # A pixel over the edge is a matter of counting from 0 or 1, not worth a word.
        moved = mended | (keep & (np.abs(inside - raw) > 1.0).any(axis=1))
        if moved.any():
            self.problems.clipped[source] = int(moved.sum())
        return inside[keep], keep

    def build(self) -> Records:
        """The packed arrays."""
        paths = [path.encode() for _, path, _, _ in self._images]
        return Records(
            image_ids=np.array([i for i, _, _, _ in self._images], dtype=np.int64),
            path_bytes=np.frombuffer(b"".join(paths), dtype=np.uint8),
            path_ends=np.cumsum([len(p) for p in paths], dtype=np.int64),
            sizes=np.array([(h, w) for _, _, h, w in self._images], dtype=np.int64).reshape(-1, 2),
            ends=np.cumsum([len(b) for b in self._boxes], dtype=np.int64),
            boxes=np.concatenate([*self._boxes, np.zeros((0, 4), np.float32)]),
            labels=np.concatenate([*(r[0] for r in self._rest), np.zeros(0, np.int64)]),
            is_ignore=np.concatenate([*(r[1] for r in self._rest), np.zeros(0, bool)]),
            area=np.concatenate([*(r[2] for r in self._rest), np.zeros(0, np.float64)]),
        )


def box_problem(box: NDArray[np.float64], size: tuple[int, int]) -> str | None:
    """Why a box (xyxy) can't be learnt from in an image of (height, width) `size`, or None."""
    x1, y1, x2, y2 = box.tolist()
    if not np.isfinite(box).all():
        return "a coordinate is not finite"
    if x2 < x1 or y2 < y1:
        return "inverted: its right or bottom edge lies before the other"
    if x2 == x1 or y2 == y1:
        return "zero area"
    height, width = size
    if height > 0 and (x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height):
        return f"outside of the image of {width}x{height}"
    return None


def some(items: Sequence[Any]) -> str:
    """The first few of a list, and how many more there are."""
    text = ", ".join(map(str, items[:NAMED]))
    return text + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2 images`; many: a plural that is not formed by an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
