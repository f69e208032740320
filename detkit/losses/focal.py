"""Sigmoid focal loss (1708.02002, equation 5)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class SigmoidFocalLoss(SigmoidLoss):
    """Focal loss on sigmoid scores: cross-entropy times (1 - p_t)^gamma (1708.02002, equation 5).

    Args:
        alpha: weight of positives; negatives get 1 - alpha. null weighs both alike.
        gamma: exponent that fades easy examples; 0 gives alpha-balanced cross-entropy.
        prior: foreground probability that every anchor starts with (section 4.1).
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        alpha: Fraction | None = 0.25,
        gamma: NonNegative = 2.0,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        return self.weight * sigmoid_focal_sum(logits, labels, self.alpha, self.gamma)
