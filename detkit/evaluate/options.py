"""Settings of the evaluation; no torch here, so that a config can be checked quickly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Interval

from detkit.registry import Positive, enforce_bounds
from detkit.registry.values import value_text

Count = Annotated[int, Interval(ge=1, le=100_000)]


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class EvaluatorOptions:
    """How average precision is computed.

    Args:
        engine: `faster` is faster-coco-eval (C++); `pycocotools` is the reference, about ten times slower. Both give
            the same figures.
        max_detections: how many of the best-scoring detections per image and class count, ascending; AP uses the
            last one, AR has a figure for each.
        area_limits: square pixels, the upper ends of `small` and `medium` (COCO: 32^2 and 96^2).
        max_per_image: how many of the best-scoring detections of an image count, over all its classes; null for no
            limit. LVIS has 300 (1908.03195), with max_detections [1, 10, 300] and `postprocess.max_detections: 300`.
        voc: also give the AP of PASCAL VOC, `ap_voc07` and `ap_voc12` (see `detkit/evaluate/voc.py`).
    """

    engine: Literal["faster", "pycocotools"] = "faster"
    max_detections: tuple[Count, Count, Count] = (1, 10, 100)
    area_limits: tuple[Positive, Positive] = (1024.0, 9216.0)
    max_per_image: Count | None = None
    voc: bool = False

    @property
    def area_ranges(self) -> list[list[float]]:
        """[lower, upper] of all, small, medium, large; both ends belong to the range, as in pycocotools."""
        small, medium = self.area_limits
        return [[0.0, 1e10], [0.0, small], [small, medium], [medium, 1e10]]

    def __post_init__(self) -> None:
        if self.engine not in ("faster", "pycocotools"):
            raise ValueError(f"evaluator.engine: {self.engine!r} must be 'faster' or 'pycocotools'")
        counts = tuple(self.max_detections)
        if len(counts) != 3 or any(a >= b for a, b in pairwise(counts)):
            raise ValueError(f"evaluator.max_detections: {counts} must be three ascending counts, e.g. (1, 10, 100)")
        small, medium = self.area_limits
        if small >= medium:
            raise ValueError(f"evaluator.area_limits: {value_text(small)} must be less than {value_text(medium)}")
