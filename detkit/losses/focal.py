"""Sigmoid focal loss (1708.02002, equation 5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit.losses.base import ClassificationLoss
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES

__all__ = ["SigmoidFocalLoss", "sigmoid_focal_sum"]


@CLASS_LOSSES.register()
class SigmoidFocalLoss(ClassificationLoss):
    """Cross-entropy of independent sigmoids, weighted down by (1 - p)^gamma where it is already right.

    alpha: weight of a positive; its complement weighs the negatives; null weighs both by 1. gamma: 0
    gives alpha-balanced cross-entropy. prior: foreground probability that every anchor starts with
    (section 4.1). weight: factor on the sum.
    """

    def __init__(
        self, *, alpha: float | None = 0.25, gamma: float = 2.0, prior: float = 0.01, weight: float = 1.0
    ) -> None:
        super().__init__()
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha: {alpha} is not between 0 and 1")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma: {gamma} is not a finite number from 0 on")
        if not 0 < prior < 1:
            raise ValueError(f"prior: {prior} is not a probability between 0 and 1")
        self.alpha, self.gamma, self.prior, self.weight = alpha, gamma, prior, weight

    def num_columns(self, num_classes: int) -> int:
        """One column a class; background is the absence of all."""
        return num_classes

    def initial_bias(self, num_classes: int) -> Tensor:
        """(K,) the logit of `prior`."""
        return torch.full((num_classes,), math.log(self.prior / (1 - self.prior)))

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        return self.weight * sigmoid_focal_sum(logits, labels, self.alpha, self.gamma)
