"""Quality focal loss (2006.04388, equation 3)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.sigmoid import SigmoidLoss, at_positives, check_shapes, soft_cross_entropy
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class QualityFocalLoss(SigmoidLoss):
    """|y - p|^beta times binary cross-entropy; y is the quality of a positive at its class, 0 elsewhere.

    So the score learns how well the box fits. Without a quality y is 1.

    Args:
        beta: exponent that fades easy examples; 0 gives cross-entropy with soft targets.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    uses_quality = True

    def __init__(self, *, beta: NonNegative = 2.0, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        self.beta = beta

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels, quality)
        # alpha = 0: all entries but those of the positives' classes, without having to subtract them again.
        negatives = sigmoid_focal_sum(logits, labels, 0.0, self.beta)
        class_logits, target = at_positives(logits, labels, quality)
        # Where the score is right, the slope of |y - p|^beta is 0 or, for beta < 1, infinite: 0 is taken.
        distance = (target - class_logits.sigmoid()).abs().clamp(min=1e-12)
        return self.weight * (negatives + (distance.pow(self.beta) * soft_cross_entropy(class_logits, target)).sum())
