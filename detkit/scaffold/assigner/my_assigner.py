"""An assigner: which anchor is to find which object."""

from __future__ import annotations

import torch

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, Assignment, Candidates, Targets


@ASSIGNERS.register()
class MyAssigner(Assigner):
    """The `count` anchors that overlap an object most are to find it; all the others see background.

    An anchor that several objects want goes to the one it overlaps most. The detector itself takes out the anchors
    in ignore regions (crowds).
    """

    # The arguments are the keys of the config.
    def __init__(self, *, count: int = 6) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count: {count} must be at least 1")
        self.count = count

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        """The A anchors and the objects of one image -> (A,) labels and the object each positive is to find."""
        anchors, boxes = candidates.anchors, targets.boxes
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
        return Assignment(labels, matched)
