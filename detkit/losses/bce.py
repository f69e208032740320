"""Binary cross-entropy of independent sigmoids, plain and balanced (1708.02002, sections 3 and 3.1)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss, check_alpha
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES


@CLASS_LOSSES.register()
class BCELoss(SigmoidLoss):
    """Binary cross-entropy over every anchor and class (1708.02002, equation 1): the baseline of that paper.

    prior: foreground probability that every anchor starts with; with 0.5 there is no prior. weight:
    factor on the sum.
    """

    def __init__(self, *, prior: float = 0.01, weight: float = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return self.weight * sigmoid_focal_sum(logits, labels, None, 0.0)


@CLASS_LOSSES.register()
class BalancedBCELoss(SigmoidLoss):
    """Binary cross-entropy, positives weighted by `alpha`, negatives by 1 - alpha (1708.02002, equation 3).

    alpha: the default is the best of the paper's table 1a. prior, weight: as in `BCELoss`.
    """

    def __init__(self, *, alpha: float = 0.75, prior: float = 0.01, weight: float = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        check_alpha(alpha)
        self.alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return self.weight * sigmoid_focal_sum(logits, labels, self.alpha, 0.0)
