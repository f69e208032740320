"""The IoU thresholds of Faster R-CNN (1506.01497, section 3.1.2) and RetinaNet (1708.02002, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner, label
from detkit.registry import ASSIGNERS, Fraction, PositiveInt
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


@ASSIGNERS.register()
class MaxIoUAssigner(Assigner):
    """Labels an anchor by its highest IoU with an object: positive, ignored or background.

    Source: 1506.01497, section 3.1.2; 1708.02002, section 4.

    Args:
        positive: IoU from which an anchor is positive.
        negative: IoU below which an anchor is background; between the two it is ignored.
        low_quality: make the anchors with the highest IoU of an object (ties too) positive even below `positive`. Each
            is matched to the object it overlaps most, as in Detectron2 and torchvision. An object that no anchor
            overlaps gets none.
        best_is_own: match an object's best anchors to that object even if they overlap another one more, and those that
            are the best of several to the last of them, as in MMDetection.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; the result does not depend
            on it.
    """

    def __init__(
        self,
        *,
        positive: Fraction = 0.5,
        negative: Fraction = 0.4,
        low_quality: bool = True,
        best_is_own: bool = False,
        ignore_overlap: Fraction = 0.5,
        chunk_elements: PositiveInt = 2_000_000,
    ) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        if negative > positive:
            raise ValueError(f"negative: {negative} must not exceed positive: {positive}")
        self.positive, self.negative, self.low_quality = positive, negative, low_quality
        self.best_is_own = best_is_own
        self.positive_iou, self.forces_best = positive, low_quality

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        best_iou, matched, best_of = self._match(candidates.anchors, targets.boxes)
        is_best = best_of >= 0
        labels = torch.full_like(matched, IGNORED)
        labels[best_iou < self.negative] = BACKGROUND
        positive = best_iou >= self.positive
        if self.low_quality:
            positive = positive | is_best
        if self.low_quality and self.best_is_own:
            matched = torch.where(is_best, best_of, matched)
        return Assignment(label(positive, matched, targets, labels), matched)

    def _match(self, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Highest IoU of each anchor (A,), the object it is with (A,), and the last one it is the best of (A,), or -1.

        The best of an object are the anchors with the highest IoU that the object has with any.
        """
        count = len(anchors)
        best_iou = anchors.new_zeros(count)
        matched = torch.zeros(count, dtype=torch.int64, device=anchors.device)
        best_of = torch.full((count,), -1, device=anchors.device)
        if not len(boxes) or not count:
            return best_iou, matched, best_of
        objects = torch.arange(len(boxes), device=anchors.device)[:, None]
        pieces = torch.split(anchors, max(1, self.chunk_elements // len(boxes)))
        best_of_object = anchors.new_zeros(len(boxes))
        iou, start = torch.empty(0), 0
        for piece in pieces:
            iou = box_ops.pairwise_iou(boxes, piece)
            span = slice(start, start + len(piece))
            best_iou[span], matched[span] = iou.max(dim=0)
            best_of_object = torch.maximum(best_of_object, iou.amax(dim=1))
            start += len(piece)
        # An object that nothing overlaps must not get every anchor, with all of which it has IoU 0.
        best_of_object = best_of_object.where(best_of_object > 0, 2.0)
        start = 0
        for piece in pieces if self.low_quality else ():
            if len(pieces) > 1:
                iou = box_ops.pairwise_iou(boxes, piece)
            own = torch.where(iou == best_of_object[:, None], objects, -1)
            best_of[start : start + len(piece)] = own.amax(dim=0)
            start += len(piece)
        return best_iou, matched, best_of
