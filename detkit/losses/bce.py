"""Binary cross-entropy of independent sigmoids, plain and balanced (1708.02002, sections 3 and 3.1)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class BCELoss(SigmoidLoss):
    """Binary cross-entropy over every anchor and class (1708.02002, equation 1): the baseline of that paper.

    Args:
        prior: foreground probability that every anchor starts with; 0.5 is no prior.
        weight: factor on the sum.
    """

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        return self.weight * sigmoid_focal_sum(logits, labels, None, 0.0)


@CLASS_LOSSES.register()
class BalancedBCELoss(SigmoidLoss):
    """Binary cross-entropy with weighted positives and negatives (1708.02002, equation 3).

    Args:
        alpha: weight of positives; negatives get 1 - alpha. The default is the best of the paper's table 1a.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(self, *, alpha: Fraction = 0.75, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        self.alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        return self.weight * sigmoid_focal_sum(logits, labels, self.alpha, 0.0)
