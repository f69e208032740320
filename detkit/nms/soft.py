"""Soft-NMS: overlapping boxes get lower scores."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detkit.nms.base import NonMaxSuppression, above_zero, share
from detkit.registry import NMS


@NMS.register()
class SoftNMS(NonMaxSuppression):
    """Lowers the score of a box by how much better ones overlap it (1704.04503).

    method: "linear" multiplies by 1 - IoU where IoU > iou_threshold, "gaussian" by exp(-IoU^2 / sigma).
    A box whose score falls to `min_score` or below goes. class_agnostic: all boxes are one group.
    """

    def __init__(
        self,
        *,
        method: Literal["linear", "gaussian"] = "gaussian",
        iou_threshold: float = 0.3,
        sigma: float = 0.5,
        min_score: float = 0.001,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.method, self.sigma = method, above_zero("sigma", sigma)
        self.iou_threshold, self.min_score = share("iou_threshold", iou_threshold), share("min_score", min_score)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NonMaxSuppression.forward`."""
        from detkit.ops import soft_nms

        return soft_nms(
            boxes,
            scores,
            self.within(groups),
            method=self.method,
            iou_threshold=self.iou_threshold,
            sigma=self.sigma,
            min_score=self.min_score,
        )
