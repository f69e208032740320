"""Binary cross-entropy with hard negative mining: the rule of 1512.02325, section 2.2, on sigmoids."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.mining import hard_negatives
from detkit.losses.sigmoid import SigmoidLoss, background_costs, check_not_negative, check_shapes
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class BCEMiningLoss(SigmoidLoss):
    """Binary cross-entropy of the positives and of the background anchors that cost most, image by image.

    An anchor's cost as background is the sum over its classes. ratio: background anchors taken a
    positive. floor: taken from every image at least, so that one without objects teaches too. prior,
    weight: as in `BCELoss`.
    """

    def __init__(self, *, ratio: float = 3.0, floor: int = 10, prior: float = 0.01, weight: float = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        check_not_negative(ratio=ratio, floor=floor)
        self.ratio, self.floor = ratio, floor

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        check_shapes(logits, labels)
        taken = (labels >= 0) | hard_negatives(background_costs(logits), labels, self.ratio, self.floor)
        return self.weight * sigmoid_focal_sum(logits, torch.where(taken, labels, IGNORED), None, 0.0)
