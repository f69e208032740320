"""Greedy suppression within each class."""

from __future__ import annotations

from torch import Tensor

from detkit.nms.base import NonMaxSuppression
from detkit.ops import batched_nms, nms
from detkit.registry import NMS, Fraction


@NMS.register()
class HardNMS(NonMaxSuppression):
    """Greedy suppression by IoU.

    Args:
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is greater.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(self, *, iou_threshold: Fraction = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = iou_threshold

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        if self.class_agnostic:
            keep = nms(boxes, scores, self.iou_threshold)
        else:
            keep = batched_nms(boxes, scores, groups, self.iou_threshold)
        return keep, scores[keep]
