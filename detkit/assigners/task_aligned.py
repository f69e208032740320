"""Task-aligned assignment (TOOD, 2108.07755, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner, label
from detkit.assigners.matching import Conflicts, centres_inside, highest
from detkit.registry import ASSIGNERS, Fraction, NonNegative, Positive, PositiveInt
from detkit.structures import Assignment, Candidates, Targets

LEAST_SCORE = 1e-9
"""Least score that counts, so that the overlap still decides where scores underflow to zero."""


@ASSIGNERS.register()
class TaskAlignedAssigner(Assigner):
    """Matches an object to the anchors whose predictions are best aligned with it: s^alpha * u^beta (eq. 1).

    s is an anchor's score for the object's class, u the IoU of its predicted box with the object. All
    other anchors are background. An anchor that several objects claim goes to the one it is aligned with best; of
    equals, the first. A prediction that does not overlap the object is never matched.

    `Assignment.quality` is the paper's normalised alignment: the greatest of an object's positives equals the
    greatest IoU among them. Use this assigner with class losses that take soft targets (quality focal, varifocal).

    Source: 2108.07755, section 3.2.

    Args:
        topk: anchors per object.
        topk_of: which anchors compete for a place, those that `inside` lets in (all where centre_inside is false), or
            `all`, of which those outside the object then drop out, as in MMDetection and the authors' code.
        conflicts: an anchor that several objects claim goes to the one it is `aligned` with best, or to the one its
            predicted box `overlaps` most, as in MMDetection and the authors' code.
        smoothing: added to the greatest alignment of an object that the others are divided by; 1e-7 in MMDetection.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        centre_inside: match only anchors whose centre lies in the object, so that an object between the centres gets
            none; false follows the paper to the letter.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; the result does not depend
            on it.
    """

    def __init__(
        self,
        *,
        topk: PositiveInt = 13,
        topk_of: Literal["inside", "all"] = "inside",
        conflicts: Literal["aligned", "overlaps"] = "aligned",
        smoothing: NonNegative = 0.0,
        alpha: NonNegative = 1.0,
        beta: Positive = 6.0,
        centre_inside: bool = True,
        ignore_overlap: Fraction = 0.5,
        chunk_elements: PositiveInt = 1_000_000,
    ) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        self.topk, self.alpha, self.beta, self.centre_inside = topk, alpha, beta, centre_inside
        self.topk_of, self.conflicts, self.smoothing = topk_of, conflicts, smoothing

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        anchors, boxes, predicted = candidates.anchors, targets.boxes, candidates.boxes()
        conflicts = Conflicts(anchors)
        if len(anchors) and len(boxes):
            # A row of scores for every class of the image, to the power of alpha.
            classes, column = torch.unique(targets.labels, return_inverse=True)
            likely = candidates.scores()[:, classes].T.clamp(min=LEAST_SCORE).pow(self.alpha).contiguous()
            objects = torch.arange(len(boxes), device=anchors.device)
            for rows in torch.split(objects, max(1, self.chunk_elements // len(anchors))):
                self._claim(conflicts, anchors, predicted, likely[column[rows]], boxes, rows)
        if candidates.ignored is not None:  # before the quality, in which they take no part either
            conflicts.drop(candidates.ignored)
        positive, matched, alignment = conflicts.resolve()
        quality = torch.zeros_like(alignment)
        rows = positive.nonzero()[:, 0]
        if len(rows):
            overlap = box_ops.paired_iou(predicted[rows], boxes[matched[rows]]).float()
            strength = alignment[rows]
            if self.conflicts == "overlaps":
                strength = overlap.pow(self.beta) * likely[column[matched[rows]], rows]
            quality[rows] = normalized(strength, overlap, matched[rows], len(boxes), self.smoothing)
        return Assignment(label(positive, matched, targets), matched, quality)

    def _claim(
        self, conflicts: Conflicts, anchors: Tensor, predicted: Tensor, likely: Tensor, boxes: Tensor, rows: Tensor
    ) -> None:
        """Adds the claims of the objects `rows`; likely: (g, A), each anchor's s^alpha for the object's class."""
        alignment = box_ops.pairwise_iou(boxes[rows], predicted).pow_(self.beta).mul_(likely)
        if self.centre_inside and self.topk_of == "inside":
            alignment.masked_fill_(~centres_inside(anchors, boxes[rows, None]), 0)
        best = highest(alignment, min(self.topk, len(anchors)))
        strength = alignment.gather(1, best)
        good = strength > 0
        if self.centre_inside and self.topk_of == "all":
            good &= centres_inside(anchors[best], boxes[rows, None])
        if self.conflicts == "overlaps":
            strength = box_ops.paired_iou(predicted[best], boxes[rows, None])
        conflicts.add(best[good], rows[:, None].expand_as(best)[good], strength[good])


def normalized(alignment: Tensor, overlap: Tensor, matched: Tensor, objects: int, smoothing: float = 0.0) -> Tensor:
    """(P,) alignments of positives, scaled so that each object's greatest equals its greatest overlap (P,)."""

    def greatest(values: Tensor) -> Tensor:
        return values.new_zeros(objects).scatter_reduce_(0, matched, values, "amax")[matched]

    return (alignment / (greatest(alignment) + smoothing) * greatest(overlap)).clamp(0, 1)
