"""Adaptive training sample selection (1912.02424, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner, label
from detkit.assigners.matching import Conflicts, centres_inside, lowest
from detkit.registry import ASSIGNERS, Fraction, PositiveInt
from detkit.structures import Assignment, Candidates, Targets


@ASSIGNERS.register()
class ATSSAssigner(Assigner):
    """Gives every object its own threshold: mean plus standard deviation of its candidates' IoUs.

    The candidates of an object are, on every level, the anchors whose centres are nearest to its own. Positive are
    those that reach the threshold and have their centre inside the object; all other anchors are background.
    Of equally near anchors the first are taken; an anchor that suits several objects goes to the one it overlaps
    most. The standard deviation is that of a sample (divided by n - 1).

    With `alpha` the overlap is score^(1 - alpha) * IoU^alpha instead, of the predicted box and of its score for the
    object's class, so that predictions have a say: DDOD's assignment.

    Source: 1912.02424, algorithm 1; 2107.02963, the label assignment.

    Args:
        alpha: share of the predicted IoU in an overlap of predictions; null: the overlap is the IoU of the anchor.
        topk: candidates per level. The paper has one anchor per cell; with n of them, set about n times as many.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; at least the anchors of
            one level. The result does not depend on it.
    """

    def __init__(
        self,
        *,
        topk: PositiveInt = 9,
        alpha: Fraction | None = None,
        ignore_overlap: Fraction = 0.5,
        chunk_elements: PositiveInt = 1_000_000,
    ) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        self.topk, self.alpha = topk, alpha

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        anchors, level_sizes = candidates.anchors, candidates.level_sizes
        conflicts = Conflicts(anchors)
        if len(anchors) and len(targets.boxes):
            overlaps = self._overlaps(candidates, targets)
            objects = torch.arange(len(targets.boxes), device=anchors.device)
            for rows in torch.split(objects, max(1, self.chunk_elements // max(level_sizes))):
                self._claim(conflicts, candidates, targets.boxes, rows, overlaps)
        positive, matched, _ = conflicts.resolve()
        return Assignment(label(positive, matched, targets), matched)

    def _overlaps(self, candidates: Candidates, targets: Targets) -> Callable[[Tensor, Tensor], Tensor]:
        """Rows of anchors (g, n) and objects (g,) -> (g, n) overlaps."""
        if self.alpha is None:
            return lambda near, rows: box_ops.paired_iou(candidates.anchors[near], targets.boxes[rows, None])
        alpha, scores, predicted = self.alpha, candidates.scores(), candidates.boxes()

        def aligned(near: Tensor, rows: Tensor) -> Tensor:
            iou = box_ops.paired_iou(predicted[near], targets.boxes[rows, None])
            return scores[near, targets.labels[rows, None]].pow(1 - alpha) * iou.pow(alpha)

        return aligned

    def _claim(
        self,
        conflicts: Conflicts,
        candidates: Candidates,
        boxes: Tensor,
        rows: Tensor,
        overlaps: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        anchors = candidates.anchors
        near = self._nearest(anchors, candidates.level_sizes, boxes[rows])
        iou = overlaps(near, rows)
        spread = iou.std(dim=1, correction=min(1, iou.shape[1] - 1))
        good = (iou >= (iou.mean(dim=1) + spread)[:, None]) & centres_inside(anchors[near], boxes[rows, None])
        conflicts.add(near[good], rows[:, None].expand_as(near)[good], iou[good])

    def _nearest(self, anchors: Tensor, level_sizes: tuple[int, ...], boxes: Tensor) -> Tensor:
        """(g, n) rows of the anchors nearest to each of the boxes (g, 4), level by level."""
        centre, nearest, start = box_ops.centres(boxes), [], 0
        for level in torch.split(anchors, list(level_sizes)):
            x, y = box_ops.centres(level).unbind(1)
            square = (x - centre[:, :1]).square_().add_((y - centre[:, 1:]).square_())
            nearest.append(start + lowest(square, min(self.topk, len(level))))
            start += len(level)
        return torch.cat(nearest, dim=1)
