"""Greedy suppression within each class."""

from __future__ import annotations

from torch import Tensor

from detkit.nms.base import NonMaxSuppression, share
from detkit.registry import NMS


@NMS.register()
class HardNMS(NonMaxSuppression):
    """Greedy suppression within each group: a box goes if a better one that stays has IoU > iou_threshold.

    class_agnostic: all boxes are one group.
    """

    def __init__(self, *, iou_threshold: float = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = share("iou_threshold", iou_threshold)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NonMaxSuppression.forward`."""
        from detkit.ops import batched_nms, nms

        if self.class_agnostic:
            keep = nms(boxes, scores, self.iou_threshold)
        else:
            keep = batched_nms(boxes, scores, groups, self.iou_threshold)
        return keep, scores[keep]
