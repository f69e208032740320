"""Choice of an object's level by the losses on it (FSAF, 1903.00621, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, AssignerNode, Fraction, NonNegative
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets

SMALLEST = 1e-6
"""Score and IoU below which a logarithm is not taken."""


@ASSIGNERS.register()
class BestLevelAssigner(Assigner):
    """Keeps the positives of an object on the level where its mean loss is least (FSAF, 1903.00621, equation 3).

    The loss of a positive is the focal loss of all its scores and -log of the IoU of its predicted box.

    Args:
        assigner: the assigner that finds the positives on all levels.
        others: what the positives on the other levels become: `ignored`, as in MMDetection (there for the object's
            class alone), or `background`.
        alpha: weight of the object's class in the focal loss; other classes get 1 - alpha.
        gamma: exponent of the focal loss.
    """

    def __init__(
        self,
        *,
        assigner: AssignerNode,
        others: Literal["ignored", "background"] = "ignored",
        alpha: Fraction = 0.25,
        gamma: NonNegative = 2.0,
    ) -> None:
        inner: Assigner = ASSIGNERS.build(assigner)
        super().__init__(ignore_overlap=inner.ignore_overlap, chunk_elements=inner.chunk_elements)
        self.assigner, self.others, self.alpha, self.gamma = inner, others, alpha, gamma
        self.positive_iou, self.forces_best = inner.positive_iou, inner.forces_best
        self.changes_at = inner.changes_at

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        found: Assignment = self.assigner(candidates, targets)
        rows = (found.labels >= 0).nonzero()[:, 0]
        if not len(rows):
            return found
        sizes = torch.tensor(candidates.level_sizes, device=rows.device)
        level = torch.repeat_interleave(torch.arange(len(sizes), device=rows.device), sizes)[rows]
        objects, costs = found.matched[rows], self._costs(candidates, targets, found, rows)
        sums, counts = (costs.new_zeros(len(targets.boxes), len(sizes)) for _ in range(2))
        sums.index_put_((objects, level), costs, accumulate=True)
        counts.index_put_((objects, level), torch.ones_like(costs), accumulate=True)
        best = (sums / counts).masked_fill(counts == 0, torch.inf).argmin(dim=1)
        dropped = rows[level != best[objects]]
        other = IGNORED if self.others == "ignored" else BACKGROUND
        labels = found.labels.index_fill(0, dropped, other)
        return Assignment(labels, found.matched, found.quality)

    def _costs(self, candidates: Candidates, targets: Targets, found: Assignment, rows: Tensor) -> Tensor:
        """(P,) loss of each positive."""
        scores = candidates.scores()[rows].float().clamp(SMALLEST, 1 - SMALLEST)
        own = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, found.labels[rows][:, None], True)
        right = torch.where(own, scores, 1 - scores)
        weight = torch.where(own, self.alpha, 1 - self.alpha)
        focal = (-weight * (1 - right) ** self.gamma * right.log()).sum(dim=1)
        overlap = box_ops.paired_iou(candidates.boxes()[rows].float(), targets.boxes[found.matched[rows]])
        return focal - overlap.clamp(min=SMALLEST).log()
