"""Greedy suppression by IoU less the distance of the centres."""

from __future__ import annotations

from torch import Tensor

from detkit.nms.base import NonMaxSuppression
from detkit.ops import diou_nms
from detkit.registry import NMS, Fraction


@NMS.register()
class DIoUNMS(NonMaxSuppression):
    """Greedy suppression by IoU less the distance of the centres (1911.08287, section 3.4).

    Args:
        iou_threshold: a box is dropped if its distance IoU with a kept box of higher score is greater.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(self, *, iou_threshold: Fraction = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = iou_threshold

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        keep = diou_nms(boxes, scores, self.iou_threshold, self.within(groups))
        return keep, scores[keep]
