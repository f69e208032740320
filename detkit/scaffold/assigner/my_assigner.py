"""An assigner: which anchor is to find which object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.coders.base import BoxCoder
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, IGNORED, Assignment, Targets


@ASSIGNERS.register()
class MyAssigner(Assigner):
    """The `count` anchors that overlap an object most are to find it; all the others see background.

    An anchor that several objects want goes to the one it overlaps most.
    """

    # The arguments are the keys of the config.
    def __init__(self, *, count: int = 6) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count: {count} must be at least 1")
        self.count = count

    def forward(
        self,
        anchors: Tensor,
        level_sizes: tuple[int, ...],
        targets: Targets,
        scores: Callable[[], Tensor],
        deltas: Tensor,
        coder: BoxCoder,
    ) -> Assignment:
        """Anchors (A, 4) and the objects of one image -> (A,) labels and the object each positive is to find."""
        boxes = targets.boxes
        labels = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
        matched = torch.zeros_like(labels)
        strongest = anchors.new_zeros(len(anchors))  # overlap with the object that has the anchor so far
        # One object after the other: a matrix of all anchors by all objects would fill the memory in a crowd.
        for i in range(len(boxes)):
            # Change from here: which anchors object i wants.
            iou = box_ops.pairwise_iou(boxes[i : i + 1], anchors)[0]
            best, rows = iou.topk(min(self.count, len(anchors)))
            wanted = torch.zeros_like(iou).scatter_(0, rows, best)  # the IoU where wanted, 0 elsewhere
            stronger = wanted > strongest
            strongest = torch.where(stronger, wanted, strongest)
            labels = torch.where(stronger, targets.labels[i], labels)
            matched = torch.where(stronger, i, matched)
        if len(targets.ignore):  # nothing is learnt in ignore regions (crowds), but for the objects in them
            shared = box_ops.pairwise_intersection(anchors, targets.ignore).amax(dim=1)
            inside = shared > 0.5 * box_ops.area(anchors)
            labels = labels.masked_fill(inside & (labels == BACKGROUND), IGNORED)
        return Assignment(labels, matched)
