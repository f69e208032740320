"""Arrays that every evaluation engine reads: ground truth and detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detkit.utils.console import shorten_list
from detkit.utils.types import Bools, Floats, Floats32, Ints

AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class GroundTruth:
    """The objects of N images, M in all.

    image_ids: (N,) the data set's own. offsets: (N + 1,) rows `offsets[i]:offsets[i + 1]` belong to
    image i. boxes: (M, 4) xyxy pixels of the image on disk. labels: (M,) 0..K-1. crowd: (M,)
    regions in which detections are neither right nor wrong. area: (M,) square pixels; an object of negative
    area counts neither as missed nor as matched. xywh: (M, 4) the boxes as x, y, width, height, to the last bit as
    the file has them; None to compute them.
    """

    image_ids: Ints
    offsets: Ints
    boxes: NDArray[np.floating]
    labels: Ints
    crowd: Bools
    area: Floats
    xywh: Floats | None = None

    def __post_init__(self) -> None:
        ids, counts = np.unique(self.image_ids, return_counts=True)
        if len(ids) < len(self.image_ids):
            raise ValueError(f"ground truth: image ids are repeated: {shorten_list(ids[counts > 1].tolist(), 5)}")
        if len(self.offsets) != len(self.image_ids) + 1 or self.offsets[-1] != len(self.boxes):
            raise ValueError(
                f"ground truth: {len(self.offsets)} offsets up to {self.offsets[-1:]} do not fit "
                f"{len(self.image_ids)} images and {len(self.boxes)} boxes"
            )


class Shard(NamedTuple):
    """The detections of one process: n images, N detections.

    image_ids: (n,). counts: (n,) detections of each image. boxes: (N, 4) xyxy pixels of the image on disk.
    scores, labels: (N,).
    """

    image_ids: Ints
    counts: Ints
    boxes: Floats32
    scores: Floats32
    labels: Ints
