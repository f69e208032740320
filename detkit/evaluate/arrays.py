"""Arrays that every evaluation engine reads: ground truth and detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detkit.evaluate.options import EvaluatorOptions
from detkit.utils.console import shorten_list

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    pass


AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class GroundTruth:
    """The objects of N images, M in all.

    image_ids: (N,) the data set's own. offsets: (N + 1,) rows `offsets[i]:offsets[i + 1]` belong to
    image i. boxes: (M, 4) xyxy pixels of the image on disk. labels: (M,) 0..K-1. crowd: (M,) bool,
    regions in which detections are neither right nor wrong. area: (M,) square pixels; an object of negative
    area is neither missed nor found. xywh: (M, 4) the boxes as x, y, width, height, to the last bit as the
    file has them; None to compute them.
    """

    image_ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    xywh: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        ids, counts = np.unique(self.image_ids, return_counts=True)
        if len(ids) < len(self.image_ids):
            raise ValueError(f"ground truth: image ids given twice: {shorten_list(ids[counts > 1].tolist(), 5)}")
        if len(self.offsets) != len(self.image_ids) + 1 or self.offsets[-1] != len(self.boxes):
            raise ValueError(
                f"ground truth: {len(self.offsets)} offsets up to {self.offsets[-1:]} do not fit "
                f"{len(self.image_ids)} images and {len(self.boxes)} boxes"
            )


class Shard(NamedTuple):
    """What one process has collected: n images, N detections.

    image_ids (n,) int64, counts (n,) int64 detections of each, boxes (N, 4) float32 xyxy pixels of the
    image on disk, scores (N,) float32, labels (N,) int64.
    """

    image_ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def area_ranges(options: EvaluatorOptions) -> list[list[float]]:
    """[lower, upper] of all, small, medium, large; both ends belong to the range, as in pycocotools."""
    small, medium = options.area_limits
    return [[0.0, 1e10], [0.0, small], [small, medium], [medium, 1e10]]
