"""The IoU thresholds of Faster R-CNN (1506.01497, section 3.1.2) and RetinaNet (1708.02002, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


@ASSIGNERS.register()
class MaxIoUAssigner(Assigner):
    """Positive at IoU >= `positive` with some object, background below `negative`, ignored between.

    low_quality: for every object, the anchors with the highest IoU it has with any (ties too) become
    positive even below `positive`; each keeps its own best object, as in Detectron2 and torchvision.
    An object that no anchor overlaps stays without. ignore_overlap, chunk_elements: as for `Assigner`.
    """

    def __init__(
        self,
        *,
        positive: float = 0.5,
        negative: float = 0.4,
        low_quality: bool = True,
        ignore_overlap: float = 0.5,
        chunk_elements: int = 2_000_000,
    ) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        if not 0 <= negative <= positive <= 1:
            raise ValueError(f"negative={negative}, positive={positive}: want 0 <= negative <= positive <= 1")
        self.positive, self.negative, self.low_quality = positive, negative, low_quality
        self.positive_iou, self.forces_best = positive, low_quality

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        best_iou, matched, is_best = self._match(candidates.anchors, targets.boxes)
        labels = torch.full_like(matched, IGNORED)
        labels[best_iou < self.negative] = BACKGROUND
        positive = best_iou >= self.positive
        if self.low_quality:
            positive = positive | is_best
        if len(targets.boxes):
            labels = torch.where(positive, targets.labels[matched], labels)
        return Assignment(labels, matched)

    def _match(self, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per anchor: highest IoU (A,), the object it is with (A,), and whether it is that object's best.

        "Best" marks an anchor that has, with any object, the highest IoU the object reaches.
        """
        count = len(anchors)
        best_iou = anchors.new_zeros(count)
        matched = torch.zeros(count, dtype=torch.int64, device=anchors.device)
        is_best = torch.zeros(count, dtype=torch.bool, device=anchors.device)
        if not len(boxes) or not count:
            return best_iou, matched, is_best
        pieces = torch.split(anchors, max(1, self.chunk_elements // len(boxes)))
        reached = anchors.new_zeros(len(boxes))
        iou, start = torch.empty(0), 0
        for piece in pieces:
            iou = box_ops.pairwise_iou(boxes, piece)
            span = slice(start, start + len(piece))
            best_iou[span], matched[span] = iou.max(dim=0)
            reached = torch.maximum(reached, iou.amax(dim=1))
            start += len(piece)
        # An object that nothing overlaps must not take every anchor it has IoU 0 with.
        reached = torch.where(reached > 0, reached, torch.full_like(reached, 2.0))
        start = 0
        for piece in pieces if self.low_quality else ():
            if len(pieces) > 1:
                iou = box_ops.pairwise_iou(boxes, piece)
            is_best[start : start + len(piece)] = (iou == reached[:, None]).any(dim=0)
            start += len(piece)
        return best_iou, matched, is_best
