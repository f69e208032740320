"""SSD's matching of default boxes (1512.02325, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, Fraction, PositiveInt
from detkit.structures import BACKGROUND, Assignment, Candidates, Targets


@ASSIGNERS.register()
class SSDAssigner(Assigner):
    """Makes every object's best anchor positive, and every anchor above an IoU; all others are background.

    An object's best anchor (of equal ones the first) is matched to that object even if it overlaps another one
    more; if it is the best of several objects, the last of them gets it, as in torchvision. An object that
    no anchor overlaps gets none.

    Source: 1512.02325, section 2.2.

    Args:
        positive: IoU above which an anchor is positive.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; the result does not depend
            on it.
    """

    def __init__(
        self, *, positive: Fraction = 0.5, ignore_overlap: Fraction = 0.5, chunk_elements: PositiveInt = 2_000_000
    ) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        self.positive = positive
        self.positive_iou, self.forces_best = positive, True

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        anchors = candidates.anchors
        labels = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
        matched = torch.zeros_like(labels)
        if len(anchors) and len(targets.boxes):
            overlap, matched, forced = self._match(anchors, targets.boxes)
            matched = torch.where(forced >= 0, forced, matched)
            positive = (overlap > self.positive) | (forced >= 0)
            labels = torch.where(positive, targets.labels[matched], labels)
        return Assignment(labels, matched)

    def _match(self, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Highest IoU of each anchor (A,), the object it is with (A,), and the object whose best it is, or -1."""
        overlap, matched = anchors.new_empty(len(anchors)), torch.empty_like(anchors[:, 0], dtype=torch.int64)
        best_iou = anchors.new_zeros(len(boxes))
        best = torch.zeros(len(boxes), dtype=torch.int64, device=anchors.device)
        start = 0
        for piece in torch.split(anchors, max(1, self.chunk_elements // len(boxes))):
            iou = box_ops.pairwise_iou(boxes, piece)
            highest = iou.max(dim=0)
            # In place: small tensors allocated between the large pieces would keep their memory from being reused.
            overlap[start : start + len(piece)], matched[start : start + len(piece)] = highest.values, highest.indices
            of_object = iou.max(dim=1)
            best = torch.where(of_object.values > best_iou, of_object.indices + start, best)
            best_iou = torch.maximum(best_iou, of_object.values)
            start += len(piece)
        # Not by an indexed write, whose winner is random on a GPU when two objects claim one anchor.
        objects = torch.where(best_iou > 0, torch.arange(len(boxes), device=anchors.device), -1)
        forced = torch.full((len(anchors),), -1, device=anchors.device).scatter_reduce(0, best, objects, "amax")
        return overlap, matched, forced
