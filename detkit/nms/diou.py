"""Greedy suppression by IoU less the distance of the centres."""

from __future__ import annotations

from torch import Tensor

from detkit.nms.base import NonMaxSuppression, share
from detkit.registry import NMS


@NMS.register()
class DIoUNMS(NonMaxSuppression):
    """Greedy suppression by IoU less the distance of the centres (1911.08287, section 3.4).

    iou_threshold: a box goes if that is more with a better one that stays. class_agnostic: all boxes are one group.
    """

    def __init__(self, *, iou_threshold: float = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = share("iou_threshold", iou_threshold)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NonMaxSuppression.forward`."""
        from detkit.ops import diou_nms

        keep = diou_nms(boxes, scores, self.iou_threshold, self.within(groups))
        return keep, scores[keep]
