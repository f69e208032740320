"""Equalized focal loss for long-tailed classes (2201.02593, equations 4 and 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.focal_family import focal_family_sum
from detkit.losses.sigmoid import SigmoidLoss
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction, Positive


@CLASS_LOSSES.register()
class EqualizedFocalLoss(SigmoidLoss):
    """Focal loss with gamma_j = gamma + scale (1 - g_j) for class j, times gamma_j / gamma.

    g_j is the accumulated gradient magnitude of the positives of class j over that of its negatives, at most 1:
    a rare class gets a large gamma and, by the factor, keeps the weight of its hard entries. Before the first
    step g is 1 and this is focal loss. The gradient is that of this loss itself. The sums are
    updated once per step, over all ranks, and are part of the checkpoint.

    Args:
        scale: how much gamma grows as g_j falls from 1 to 0.
        alpha: weight of positives; negatives get 1 - alpha. None weighs both alike.
        gamma: exponent that fades easy examples. Use BalancedBCELoss for focal loss with gamma = 0.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    gradients: Tensor

    def __init__(
        self,
        *,
        scale: NonNegative = 8.0,
        alpha: Fraction | None = 0.25,
        gamma: Positive = 2.0,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.scale, self.alpha, self.gamma = scale, alpha, gamma
        self.register_buffer("gradients", torch.zeros(2, 0, dtype=torch.float64))

    def num_columns(self, num_classes: int) -> int:
        """K; also allocates the sums of every class."""
        self._allocate(num_classes)
        return num_classes

    def _allocate(self, columns: int) -> None:
        if self.gradients.shape[1] != columns:
            self.gradients = self.gradients.new_zeros(2, columns)

    def balance(self) -> Tensor:
        """(K,) g, from 0 (negatives only) to 1 (balanced, or before the first step)."""
        positive, negative = self.gradients
        return torch.where(negative > 0, positive / negative.clamp(min=1e-30), 1.0).clamp(max=1)

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        self._allocate(logits.shape[-1])
        gamma = self.gamma + self.scale * (1 - self.balance())
        total, sizes = focal_family_sum(logits, labels, self.alpha, gamma, gamma / self.gamma)
        if self.training:
            self.accumulate(sizes.flatten())
        return self.weight * total

    def end_step(self, totals: Tensor) -> None:
        if totals.numel():
            self.gradients += totals.to(self.gradients).view_as(self.gradients)
