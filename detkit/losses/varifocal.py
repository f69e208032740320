"""Varifocal loss (2008.13367, equation 2)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss, at_positives, check_shapes, soft_cross_entropy
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class VarifocalLoss(SigmoidLoss):
    """Cross-entropy with a positive's quality q as target and weight; negatives count alpha p^gamma.

    Easy positives keep their weight, unlike in focal loss. A positive of quality 0 is a negative at its class, as in
    the paper. Without a quality q is 1.

    Args:
        alpha: weight of negatives.
        gamma: exponent that fades easy negatives.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    uses_quality = True

    def __init__(
        self,
        *,
        alpha: Fraction = 0.75,
        gamma: NonNegative = 2.0,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels, quality)
        # Weight 0 for the entries of the positives' classes, 1 for all others.
        negatives = sigmoid_focal_sum(logits, labels, 0.0, self.gamma)
        class_logits, target = at_positives(logits, labels, quality)
        cost = soft_cross_entropy(class_logits, target)
        # p^gamma from the log: the slope of 0^gamma would be infinite for gamma < 1.
        ones = target.new_ones(()).expand_as(class_logits)
        missed = self.alpha * (self.gamma * -soft_cross_entropy(class_logits, ones)).exp() * cost
        positives = (target * cost).where(target > 0, missed).sum()
        return self.weight * (self.alpha * negatives + positives)
