"""The contract of an assigner, and how ignore regions are applied to what it chooses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from detkit import boxes as box_ops
from detkit.structures import IGNORED, Assignment, Candidates, Targets


class Assigner(nn.Module):
    """Decides, for every anchor of an image, which object it is to predict.

    positive_iou: IoU with an object from which on an anchor is positive, None where no such number exists.
    forces_best: whether an object's best anchor is positive below it, too. `detkit anchors check` reads both.

    Args:
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative, see `assign`. None: `forward` handles `targets.ignore` itself.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once, so that memory stays
            constant in a crowd. The result does not depend on it.
    """

    positive_iou: float | None = None
    forces_best: bool = False

    def __init__(self, *, ignore_overlap: float | None = 0.5, chunk_elements: int = 1_000_000) -> None:
        super().__init__()
        if chunk_elements < 1:
            raise ValueError(f"chunk_elements: {chunk_elements} must be at least 1")
        if ignore_overlap is not None and not 0 <= ignore_overlap <= 1:
            raise ValueError(f"ignore_overlap: {ignore_overlap} is not a share between 0 and 1")
        self.ignore_overlap, self.chunk_elements = ignore_overlap, chunk_elements

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        """Labels the anchors of one image; called under `no_grad`."""
        raise NotImplementedError


def assign(assigner: Assigner, candidates: Candidates, targets: Targets) -> Assignment:
    """The choice of the assigner, with the anchors in ignore regions IGNORED."""
    ignored = None
    if assigner.ignore_overlap is not None and len(targets.ignore):
        ignored = in_ignore_region(candidates.anchors, targets.ignore, assigner.ignore_overlap, assigner.chunk_elements)
    assignment: Assignment = assigner(replace(candidates, ignored=ignored), targets)
    if ignored is None:
        return assignment
    return replace(assignment, labels=assignment.labels.masked_fill(ignored, IGNORED))


def in_ignore_region(anchors: Tensor, regions: Tensor, overlap: float, chunk_elements: int) -> Tensor:
    """(A,) whether more than the fraction `overlap` of an anchor's area lies in one of the regions (I, 4), I >= 1.

    Works on at most `chunk_elements` pairs at a time.
    """
    most, start = torch.empty_like(anchors[:, 0]), 0
    for piece in torch.split(anchors, max(1, chunk_elements // len(regions))):
        most[start : start + len(piece)] = box_ops.pairwise_intersection(piece, regions).amax(dim=1)
        start += len(piece)
    return most > overlap * box_ops.area(anchors)
