"""Online hard example mining (1604.03540, section 4.1) on the anchors of a dense head."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss, background_costs, check_shapes
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class OHEMLoss(SigmoidLoss):
    """Binary cross-entropy of the `count` anchors of each image that cost most, positive or not.

    Easy positives are dropped too: that sets it apart from `BCEMiningLoss`. count: per image; 128 is the
    paper's batch (shared there by two images) and the best of 1708.02002, table 1d. An image with fewer
    anchors is used whole, which is plain cross-entropy. The paper thins anchors by suppression before the
    choice; a class loss knows no boxes, so that is left out. prior, weight: as in `BCELoss`.
    """

    def __init__(self, *, count: int = 128, prior: float = 0.01, weight: float = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        if count < 1:
            raise ValueError(f"count: {count} leaves nothing to learn from")
        self.count = count

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        check_shapes(logits, labels)
        costs = anchor_costs(logits, labels)
        taken = torch.zeros_like(labels, dtype=torch.bool)
        taken.scatter_(1, costs.topk(min(self.count, labels.shape[1]), dim=1).indices, True)
        return self.weight * sigmoid_focal_sum(logits, torch.where(taken, labels, IGNORED), None, 0.0)


def anchor_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, A) binary cross-entropy of each anchor, minus infinity where it is ignored, without graph."""
    costs = background_costs(logits)
    if logits.shape[-1]:
        own = logits.detach().gather(-1, labels.clamp(min=0)[..., None])[..., 0].to(costs.dtype)
        costs = torch.where(labels >= 0, costs - own, costs)
    return costs.masked_fill(labels == IGNORED, -torch.inf)
