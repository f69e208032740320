"""Adaptive training sample selection (1912.02424, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.assigners.matching import Claims, centres_inside, in_ignore_region, lowest
from detkit.coders.base import BoxCoder
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, IGNORED, Assignment, Targets


@ASSIGNERS.register()
class ATSSAssigner(Assigner):
    """An object's threshold is the mean plus the standard deviation of the IoUs it has with its candidates.

    Its candidates are, of every level, the `topk` anchors whose centres are nearest to its own; positive
    are those that reach its threshold and have their centre inside it. All other anchors are background.
    The paper has one anchor a cell: with n of them, `topk` wants to be about n times as large. Of equally
    near anchors the first are taken; an anchor that suits several objects goes to the one it overlaps
    most. The standard deviation is that of a sample (divided by n - 1). ignore_overlap: an anchor with
    more than this share of its area in an ignore region (crowd, difficult) is neither positive nor
    negative. chunk_elements: the anchor-by-object matrix is worked on in pieces of at most so many
    entries (at least the anchors of one level), so that memory stays constant; the result does not
    depend on it.
    """

    def __init__(self, *, topk: int = 9, ignore_overlap: float = 0.5, chunk_elements: int = 1_000_000) -> None:
        super().__init__()
        for name, value in (("topk", topk), ("chunk_elements", chunk_elements)):
            if value < 1:
                raise ValueError(f"{name}: {value} must be at least 1")
        if not 0 <= ignore_overlap <= 1:
            raise ValueError(f"ignore_overlap: {ignore_overlap} is not a share between 0 and 1")
        self.topk, self.ignore_overlap, self.chunk_elements = topk, ignore_overlap, chunk_elements

    def forward(
        self,
        anchors: Tensor,
        level_sizes: tuple[int, ...],
        targets: Targets,
        scores: Callable[[], Tensor],
        deltas: Tensor,
        coder: BoxCoder,
    ) -> Assignment:
        """See `Assigner.forward`; looks at anchors, levels and targets only."""
        claims = Claims(anchors)
        if len(anchors) and len(targets.boxes):
            objects = torch.arange(len(targets.boxes), device=anchors.device)
            for rows in torch.split(objects, max(1, self.chunk_elements // max(level_sizes))):
                self._claim(claims, anchors, level_sizes, targets.boxes, rows)
        positive, matched, _ = claims.settle()
        labels = torch.full_like(matched, BACKGROUND)
        if len(targets.boxes):
            labels = torch.where(positive, targets.labels[matched], labels)
        ignored = in_ignore_region(anchors, targets.ignore, self.ignore_overlap, self.chunk_elements)
        return Assignment(labels.masked_fill(ignored, IGNORED), matched)

    def _claim(
        self, claims: Claims, anchors: Tensor, level_sizes: tuple[int, ...], boxes: Tensor, rows: Tensor
    ) -> None:
        """Adds what some of the objects want."""
        near = self._candidates(anchors, level_sizes, boxes[rows])
        iou = box_ops.paired_iou(anchors[near], boxes[rows, None])
        spread = iou.std(dim=1, correction=min(1, iou.shape[1] - 1))
        good = (iou >= (iou.mean(dim=1) + spread)[:, None]) & centres_inside(anchors[near], boxes[rows, None])
        claims.add(near[good], rows[:, None].expand_as(near)[good], iou[good])

    def _candidates(self, anchors: Tensor, level_sizes: tuple[int, ...], boxes: Tensor) -> Tensor:
        """(g, n) anchors that are nearest to each of the boxes (g, 4), level by level."""
        centre, found, start = (boxes[:, :2] + boxes[:, 2:]) / 2, [], 0
        for level in torch.split(anchors, list(level_sizes)):
            x, y = ((level[:, :2] + level[:, 2:]) / 2).unbind(1)
            square = (x - centre[:, :1]).square_().add_((y - centre[:, 1:]).square_())
            found.append(start + lowest(square, min(self.topk, len(level))))
            start += len(level)
        return torch.cat(found, dim=1)
