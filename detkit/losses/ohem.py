"""Online hard example mining (1604.03540, section 4.1) on the anchors of a dense head."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss, background_costs, check_shapes
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, NonNegative, OpenFraction, PositiveInt
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class OHEMLoss(SigmoidLoss):
    """Binary cross-entropy of the hardest anchors of each image, positive or not.

    Easy positives are dropped too, unlike in `BCEMiningLoss`. The paper thins anchors by suppression before the
    choice; a class loss has no boxes, so that is left out.

    Args:
        count: anchors per image; all of them if it has fewer. 128 is the paper's batch (two images there) and the best
            of 1708.02002, table 1d.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(self, *, count: PositiveInt = 128, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        self.count = count

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        costs = anchor_costs(logits, labels)
        hardest = torch.zeros_like(labels, dtype=torch.bool)
        hardest.scatter_(1, costs.topk(min(self.count, labels.shape[1]), dim=1).indices, True)
        return self.weight * sigmoid_focal_sum(logits, torch.where(hardest, labels, IGNORED), None, 0.0)


def anchor_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, A) binary cross-entropy of each anchor, minus infinity where it is ignored, without graph."""
    costs = background_costs(logits)
    if logits.shape[-1]:
        class_logits = logits.detach().gather(-1, labels.clamp(min=0)[..., None])[..., 0].to(costs.dtype)
        costs = torch.where(labels >= 0, costs - class_logits, costs)
    return costs.masked_fill(labels == IGNORED, -torch.inf)
