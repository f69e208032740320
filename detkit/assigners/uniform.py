"""Uniform matching: the same number of anchors for every object (YOLOF, 2103.09460, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.assigners.matching import lowest
from detkit.registry import ASSIGNERS, Fraction, PositiveInt
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


@ASSIGNERS.register()
class UniformAssigner(Assigner):
    """Matches every object, large or small, to its nearest predicted boxes and to its nearest anchors.

    Near is the L1 distance of centres, widths and heights. The paper takes the nearest anchors; its authors' code, and
    this, takes as many predicted boxes as well. The box losses count a match once for each, see `Assignment.pairs`, and
    an anchor that several objects match for each of them; its class is that of the last: farther neighbours come later,
    at the same rank anchors after predictions, then objects in their order. Of equally near anchors the last is taken.

    Source: 2103.09460, section 4.2.

    Args:
        matches: anchors and predicted boxes an object.
        positive: IoU of anchor and object below which a match is ignored.
        ignore: IoU of a predicted box with any object above which an anchor without a match is ignored.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; the result does not depend
            on it.
    """

    def __init__(
        self,
        *,
        matches: PositiveInt = 4,
        positive: Fraction = 0.15,
        ignore: Fraction = 0.7,
        ignore_overlap: Fraction = 0.5,
        chunk_elements: PositiveInt = 1_000_000,
    ) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        self.matches, self.positive, self.ignore = matches, positive, ignore

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        anchors, boxes = candidates.anchors, targets.boxes
        labels = torch.full_like(anchors[:, 0], BACKGROUND, dtype=torch.int64)
        matched = torch.zeros_like(labels)
        if not len(anchors) or not len(boxes):
            return Assignment(labels, matched, pairs=(labels[:0], labels[:0]))
        overlap, near = self._nearest(anchors, candidates.boxes(), boxes)
        rows = near.flatten()
        objects = torch.arange(len(boxes), device=rows.device).repeat(len(rows) // len(boxes))
        counts = box_ops.paired_iou(anchors[rows], boxes[objects]) >= self.positive
        order = torch.arange(len(rows), device=rows.device)
        last = torch.full_like(labels, -1).scatter_reduce_(0, rows, order, "amax")
        pick = last.clamp(min=0)
        labels = torch.where(overlap > self.ignore, IGNORED, labels)
        labels = torch.where(last >= 0, torch.where(counts, targets.labels[objects], IGNORED)[pick], labels)
        return Assignment(labels, objects[pick], pairs=(rows[counts], objects[counts]))

    def _nearest(self, anchors: Tensor, predicted: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(A,) greatest IoU of each predicted box, and (n, 2, G) rows of the predictions and anchors near each box."""
        count = min(self.matches, len(anchors))
        overlap = anchors.new_zeros(len(anchors))
        near = torch.empty(count, 2, len(boxes), dtype=torch.int64, device=anchors.device)
        shapes, step = (
            [box_ops.to_cxcywh(of) for of in (predicted, anchors)],
            max(1, self.chunk_elements // len(anchors)),
        )
        for start in range(0, len(boxes), step):
            some = boxes[start : start + step]
            torch.maximum(overlap, box_ops.pairwise_iou(some, predicted).amax(dim=0), out=overlap)
            for kind, shape in enumerate(shapes):
                distance = torch.cdist(box_ops.to_cxcywh(some), shape, p=1)
                near[:, kind, start : start + step] = last_lowest(distance, count).T
        return overlap, near


def last_lowest(values: Tensor, count: int) -> Tensor:
    """(N, M) numbers >= 0 -> (N, count) columns of each row's smallest, of equal ones those that come last."""
    return values.shape[1] - 1 - lowest(values.flip(1), count)
