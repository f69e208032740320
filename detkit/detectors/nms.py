"""Suppression of duplicate detections."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.registry import NMS


class NMSBase(nn.Module):
    """The contract of a suppression part."""

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), groups (N,) -> indices to keep (M,) and their scores (M,), descending.

        The scores are new ones where the method lowers them instead of dropping boxes.
        """
        raise NotImplementedError


@NMS.register()
class HardNMS(NMSBase):
    """Greedy suppression within each group: a box goes if a better one that stays has IoU > iou_threshold.

    class_agnostic: all boxes are one group.
    """

    def __init__(self, *, iou_threshold: float = 0.5, class_agnostic: bool = False) -> None:
        super().__init__()
        if not 0 <= iou_threshold <= 1:
            raise ValueError(f"iou_threshold: {iou_threshold} is not in [0, 1]")
        self.iou_threshold, self.class_agnostic = iou_threshold, class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NMSBase.forward`."""
        from detkit.ops import batched_nms, nms

        if self.class_agnostic:
            keep = nms(boxes, scores, self.iou_threshold)
        else:
            keep = batched_nms(boxes, scores, groups, self.iou_threshold)
        return keep, scores[keep]
