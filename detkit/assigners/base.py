"""The contract of an assigner, and the rule for ignore regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from detkit import boxes as box_ops
from detkit.registry import Fraction, PositiveInt, enforce_bounds
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


@enforce_bounds
class Assigner(nn.Module):
    """Assigns each anchor of an image to an object or to the background.

    positive_iou: IoU with an object at which an anchor becomes positive, None if there is no such threshold.
    forces_best: whether an object's best anchor is positive below it, too. `detkit anchors check` reads both.
    changes_at: fraction of the training at which the rule changes, for parts of the losses that change with it; None
    if it doesn't.

    Args:
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative, see `assign`. None: `forward` handles `targets.ignore` itself.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once, so that memory stays
            constant in a crowd. The result does not depend on it.
    """

    positive_iou: float | None = None
    forces_best: bool = False
    changes_at: float | None = None

    def __init__(self, *, ignore_overlap: Fraction | None = 0.5, chunk_elements: PositiveInt = 1_000_000) -> None:
        super().__init__()
        self.ignore_overlap, self.chunk_elements = ignore_overlap, chunk_elements

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        """Labels the anchors of one image; called under `no_grad`."""
        raise NotImplementedError


def label(positive: Tensor, matched: Tensor, targets: Targets, others: Tensor | None = None) -> Tensor:
    """(A,) labels: the class of the matched object where positive, elsewhere `others` or background."""
    others = torch.full_like(matched, BACKGROUND) if others is None else others
    return torch.where(positive, targets.labels[matched], others) if len(targets.boxes) else others


def assign(assigner: Assigner, candidates: Candidates, targets: Targets) -> Assignment:
    """Assigns the anchors of one image; those in ignore regions become IGNORED."""
    ignored = None
    if assigner.ignore_overlap is not None and len(targets.ignore):
        ignored = in_ignore_region(candidates.anchors, targets.ignore, assigner.ignore_overlap, assigner.chunk_elements)
    assignment: Assignment = assigner(replace(candidates, ignored=ignored), targets)
    if ignored is None:
        return assignment
    pairs = assignment.pairs
    if pairs is not None:
        counted = ~ignored[pairs[0]]
        pairs = pairs[0][counted], pairs[1][counted]
    return replace(assignment, labels=assignment.labels.masked_fill(ignored, IGNORED), pairs=pairs)


def pairs_of(assigned: Sequence[Assignment], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The assignments of B images and their labels (B, A) -> (P,) images, anchors and objects of the box losses."""
    if all(a.pairs is None for a in assigned):
        image, row = (labels >= 0).nonzero(as_tuple=True)
        return image, row, torch.stack([a.matched for a in assigned])[image, row]
    pairs = []
    for i, a in enumerate(assigned):
        rows = (a.labels >= 0).nonzero()[:, 0]
        row, matched = (rows, a.matched[rows]) if a.pairs is None else a.pairs
        pairs.append((torch.full_like(row, i), row, matched))
    image, row, matched = (torch.cat(column) for column in zip(*pairs, strict=True))
    return image, row, matched


def in_ignore_region(anchors: Tensor, regions: Tensor, overlap: float, chunk_elements: int) -> Tensor:
    """(A,) whether more than the fraction `overlap` of an anchor's area lies in one of the regions (I, 4), I >= 1.

    Works on at most `chunk_elements` pairs at a time.
    """
    most, start = torch.empty_like(anchors[:, 0]), 0
    for piece in torch.split(anchors, max(1, chunk_elements // len(regions))):
        most[start : start + len(piece)] = box_ops.pairwise_intersection(piece, regions).amax(dim=1)
        start += len(piece)
    return most > overlap * box_ops.area(anchors)
