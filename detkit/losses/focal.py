"""Sigmoid focal loss (1708.02002, equation 5)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss, check_alpha, check_not_negative
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES


@CLASS_LOSSES.register()
class SigmoidFocalLoss(SigmoidLoss):
    """Cross-entropy of independent sigmoids, weighted down by (1 - p)^gamma where it is already right.

    alpha: weight of a positive; its complement weighs the negatives; null weighs both by 1. gamma: 0
    gives alpha-balanced cross-entropy. prior: foreground probability that every anchor starts with
    (section 4.1). weight: factor on the sum.
    """

    def __init__(
        self, *, alpha: float | None = 0.25, gamma: float = 2.0, prior: float = 0.01, weight: float = 1.0
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        check_alpha(alpha)
        check_not_negative(gamma=gamma)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return self.weight * sigmoid_focal_sum(logits, labels, self.alpha, self.gamma)
