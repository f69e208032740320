"""Soft targets: quality focal loss (2006.04388), varifocal (2008.13367) and matchability-aware (2412.04234)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class QualityFocalLoss(SigmoidLoss):
    """|y - p|^beta times binary cross-entropy; y is the quality of a positive at its class, 0 elsewhere.

    So the score learns how well the box fits. Without a quality y is 1.

    Source: 2006.04388, equation 3.

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


@CLASS_LOSSES.register()
class VarifocalLoss(SigmoidLoss):
    """Cross-entropy with a positive's quality q as target and weight; negatives count alpha p^gamma.

    Easy positives keep their weight, unlike in focal loss. A positive of quality 0 is a negative at its class, as in
    the paper. Without a quality q is 1.

    Source: 2008.13367, equation 2.

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


@CLASS_LOSSES.register()
class MatchabilityAwareLoss(SigmoidLoss):
    """MAL: cross-entropy with target q^gamma at a positive's class; all other entries count p^gamma (2412.04234).

    Unlike in varifocal loss a positive is not weighted by its quality q, so a match of low quality with a high score
    costs as much as cross-entropy says, and negatives have no factor of their own. With quality 1 it is varifocal loss
    with alpha 1, and at gamma 0 it is cross-entropy. Without a quality q is 1.

    Args:
        gamma: exponent of the target and of the scores of negatives; 1.5 is the authors'.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    uses_quality = True

    def __init__(self, *, gamma: NonNegative = 1.5, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels, quality)
        negatives = sigmoid_focal_sum(logits, labels, 0.0, self.gamma)
        class_logits, target = at_positives(logits, labels, quality)
        return self.weight * (negatives + soft_cross_entropy(class_logits, target.pow(self.gamma)).sum())


@CLASS_LOSSES.register()
class PositiveBCELoss(SigmoidLoss):
    """Cross-entropy of the positives alone; the target is their quality at their class, 0 at all others.

    The background is left to the quality branch, so it needs `ObjectnessLoss`; detections are ranked by both.
    Without a positive the sum is 0 and has no gradient.

    Source: YOLOX, 2107.08430, section 2.1; that the target is the IoU is its authors' code.

    Args:
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    uses_quality = True
    needs_positives = True
    positives_only = True

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels, quality)
        _, target = at_positives(logits, labels, quality)
        image, row = (labels >= 0).nonzero(as_tuple=True)
        positives = to_float32(logits[image, row])
        targets = torch.zeros_like(positives).scatter_(1, labels[image, row, None], target[:, None])
        return self.weight * soft_cross_entropy(positives, targets).sum()


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with targets in [0, 1], per entry."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def at_positives(logits: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
    """(P,) logits of the positives at their classes, in float32, with graph, and (P,) their targets.

    The targets are `quality` (B, A) at the positives, 1 without it.
    """
    image, row = (labels >= 0).nonzero(as_tuple=True)
    class_logits = to_float32(logits[image, row, labels[image, row]])
    target = torch.ones_like(class_logits) if quality is None else quality[image, row].to(class_logits.dtype)
    return class_logits, target
