"""Soft-NMS: overlapping boxes get lower scores."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detkit.nms.base import NonMaxSuppression
from detkit.ops import soft_nms
from detkit.registry import NMS, Fraction, Positive


@NMS.register()
class SoftNMS(NonMaxSuppression):
    """Lowers the score of a box by its overlap with boxes of higher score (1704.04503).

    Args:
        method: `linear` multiplies by 1 - IoU where IoU > iou_threshold, `gaussian` by exp(-IoU^2 / sigma).
        iou_threshold: IoU above which `linear` lowers a score.
        sigma: width of the Gaussian.
        min_score: a box whose score falls to this or below is dropped.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(
        self,
        *,
        method: Literal["linear", "gaussian"] = "gaussian",
        iou_threshold: Fraction = 0.3,
        sigma: Positive = 0.5,
        min_score: Fraction = 0.001,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.method, self.sigma, self.iou_threshold, self.min_score = method, sigma, iou_threshold, min_score

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        return soft_nms(
            boxes,
            scores,
            self.within(groups),
            method=self.method,
            iou_threshold=self.iou_threshold,
            sigma=self.sigma,
            min_score=self.min_score,
        )
