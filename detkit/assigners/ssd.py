"""SSD's matching of default boxes (1512.02325, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, Assignment, Candidates, Targets


@ASSIGNERS.register()
class SSDAssigner(Assigner):
    """Every object's best anchor is positive, and every anchor with IoU > `positive`; the rest is background.

    An object's best anchor (of equal ones the first) goes to that object even if it overlaps another one
    more; if it is the best of several objects, the last of them gets it, as in torchvision. An object that
    no anchor overlaps stays without. ignore_overlap, chunk_elements: as for `Assigner`.
    """

    def __init__(self, *, positive: float = 0.5, ignore_overlap: float = 0.5, chunk_elements: int = 2_000_000) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        if not 0 <= positive <= 1:
            raise ValueError(f"positive: {positive} is not in [0, 1]")
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
        """Per anchor: highest IoU (A,), the object it is with (A,), and the object it is the best of, or -1."""
        overlap, matched = anchors.new_empty(len(anchors)), torch.empty_like(anchors[:, 0], dtype=torch.int64)
        reached = anchors.new_zeros(len(boxes))
        best = torch.zeros(len(boxes), dtype=torch.int64, device=anchors.device)
        start = 0
        for piece in torch.split(anchors, max(1, self.chunk_elements // len(boxes))):
            iou = box_ops.pairwise_iou(boxes, piece)
            highest = iou.max(dim=0)
            # Written in place: small results kept between the large pieces would keep their memory from being reused.
            overlap[start : start + len(piece)], matched[start : start + len(piece)] = highest.values, highest.indices
            here = iou.max(dim=1)
            best = torch.where(here.values > reached, here.indices + start, best)
            reached = torch.maximum(reached, here.values)
            start += len(piece)
        # Not by index, which lets chance decide on a GPU when two objects want one anchor.
        objects = torch.where(reached > 0, torch.arange(len(boxes), device=anchors.device), -1)
        forced = torch.full((len(anchors),), -1, device=anchors.device).scatter_reduce(0, best, objects, "amax")
        return overlap, matched, forced
