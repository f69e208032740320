"""An assigner: which anchor is matched to which object."""

from __future__ import annotations

import torch

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, PositiveInt
from detkit.structures import BACKGROUND, Assignment, Candidates, Targets


@ASSIGNERS.register()
class MyAssigner(Assigner):
    """Matches an object to the anchors that overlap it most; all others are background.

    An anchor that several objects claim goes to the one it overlaps most. The detector handles anchors in
    ignore regions (crowds), so the assigner need not.

    Args:
        count: anchors per object.
    """

    # The arguments are the keys of the config; a type such as PositiveInt says which numbers it takes.
    def __init__(self, *, count: PositiveInt = 6) -> None:
        super().__init__()
        self.count = count

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        """The A anchors and the objects of one image -> (A,) labels, and the object of each positive."""
        anchors, boxes = candidates.anchors, targets.boxes
        labels = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
        matched = torch.zeros_like(labels)
        strongest = anchors.new_zeros(len(anchors))  # IoU of each anchor with its object so far
        # Object by object: a matrix of all anchors by all objects would fill the memory in a crowd.
        for i in range(len(boxes)):
            # Change from here: which anchors object i claims.
            iou = box_ops.pairwise_iou(boxes[i : i + 1], anchors)[0]
            best, rows = iou.topk(min(self.count, len(anchors)))
            claimed = torch.zeros_like(iou).scatter_(0, rows, best)  # the IoU where claimed, 0 elsewhere
            stronger = claimed > strongest
            strongest = torch.where(stronger, claimed, strongest)
            labels = torch.where(stronger, targets.labels[i], labels)
            matched = torch.where(stronger, i, matched)
        return Assignment(labels, matched)
