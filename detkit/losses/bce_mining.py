"""Binary cross-entropy with hard negative mining: the rule of 1512.02325, section 2.2, on sigmoids."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.mining import hard_negatives
from detkit.losses.sigmoid import SigmoidLoss, background_costs, check_shapes
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, NonNegative, NonNegativeInt, OpenFraction
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class BCEMiningLoss(SigmoidLoss):
    """Binary cross-entropy of the positives and of each image's hardest background anchors.

    Hardest are those whose cross-entropy as background, summed over the classes, is greatest.

    Args:
        ratio: background anchors per positive of the image.
        floor: least number of background anchors per image, so that images without objects contribute too.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        ratio: NonNegative = 3.0,
        floor: NonNegativeInt = 10,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.ratio, self.floor = ratio, floor

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        used = (labels >= 0) | hard_negatives(background_costs(logits), labels, self.ratio, self.floor)
        return self.weight * sigmoid_focal_sum(logits, torch.where(used, labels, IGNORED), None, 0.0)
