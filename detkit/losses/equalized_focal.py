"""Equalized focal loss for long-tailed classes (2201.02593, equations 4 and 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.focal_family import focal_family_sum
from detkit.losses.sigmoid import SigmoidLoss, check_alpha, check_not_negative
from detkit.registry import CLASS_LOSSES


@CLASS_LOSSES.register()
class EqualizedFocalLoss(SigmoidLoss):
    """Focal loss with gamma_j = gamma + scale (1 - g_j) for class j, times gamma_j / gamma.

    g_j is the sum of the gradient's size over all positives so far over that over all negatives, at most 1:
    a rare class gets a large gamma and, by the factor, keeps the weight of its hard entries. Until something
    was counted g is 1 and this is focal loss. The size is that of this loss's own gradient. The sums are
    brought up to date once a step, over all ranks, and stand in the checkpoint. gamma: above zero. alpha, prior,
    weight: as in `SigmoidFocalLoss`.
    """

    gradients: Tensor

    def __init__(
        self,
        *,
        scale: float = 8.0,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        prior: float = 0.01,
        weight: float = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        check_alpha(alpha)
        check_not_negative(scale=scale, gamma=gamma)
        if gamma == 0:
            raise ValueError("gamma: 0 has nothing to be multiplied; BalancedBCELoss is focal loss without gamma")
        self.scale, self.alpha, self.gamma = scale, alpha, gamma
        self.register_buffer("gradients", torch.zeros(2, 0, dtype=torch.float64))

    def num_columns(self, num_classes: int) -> int:
        """One column a class. Called at assembly, it also makes room for the sums of every class."""
        self._make_room(num_classes)
        return num_classes

    def _make_room(self, columns: int) -> None:
        if self.gradients.shape[1] != columns:
            self.gradients = self.gradients.new_zeros(2, columns)

    def balance(self) -> Tensor:
        """(K,) g, from 0 (all negative) to 1 (positives weigh as much, or nothing was counted yet)."""
        positive, negative = self.gradients
        return torch.where(negative > 0, positive / negative.clamp(min=1e-30), 1.0).clamp(max=1)

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        self._make_room(logits.shape[-1])
        gamma = self.gamma + self.scale * (1 - self.balance())
        total, sizes = focal_family_sum(logits, labels, self.alpha, gamma, gamma / self.gamma)
        if self.training:
            self.accumulate(sizes.flatten())
        return self.weight * total

    def end_step(self, totals: Tensor) -> None:
        """See `Loss.end_step`."""
        if totals.numel():
            self.gradients += totals.to(self.gradients).view_as(self.gradients)
