"""Asymmetric loss: focal loss that fades and drops easy negatives (2009.14119)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.focal_family import with_gradient
from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.registry import CLASS_LOSSES, FractionBelowOne, NonNegative, OpenFraction
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class AsymmetricLoss(SigmoidLoss):
    """ASL: focal loss whose negatives fade faster than its positives and are dropped below a margin (2009.14119).

    An object costs (1 - p)^gamma_positive (-ln p), any other entry m^gamma_negative (-ln(1 - m)) with
    m = max(p - margin, 0). So an entry that is no object counts nothing, and gets no gradient, once its score is below
    the margin. The gradient is that of the loss itself, factors included, as in the paper. With equal gammas and no
    margin it is focal loss without alpha; with both 0 it is binary cross-entropy.

    Source: 2009.14119, section 2.

    Args:
        gamma_positive: exponent that fades easy positives; the paper's best is 0.
        gamma_negative: exponent that fades easy negatives.
        margin: score below which a negative is dropped. Where `prior` is lower, the background teaches nothing until
            scores have risen above the margin.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        gamma_positive: NonNegative = 0.0,
        gamma_negative: NonNegative = 4.0,
        margin: FractionBelowOne = 0.05,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.gamma_positive, self.gamma_negative, self.margin = gamma_positive, gamma_negative, margin

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        with torch.no_grad():
            total = to_float32(logits.new_zeros(()))
            gradient = torch.empty_like(logits, dtype=total.dtype)
            for i, (x, y) in enumerate(zip(to_float32(logits.detach()), labels, strict=True)):
                value, gradient[i] = self._one_image(x, y)
                total = total + value
        return self.weight * with_gradient(logits, total, gradient)

    def _one_image(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (A, C) and labels (A,) -> sum and gradient (A, C)."""
        cost, slope = negative_costs(x, self.gamma_negative, self.margin)
        row = (labels >= 0).nonzero()[:, 0]
        cost[row, labels[row]], slope[row, labels[row]] = positive_costs(x[row, labels[row]], self.gamma_positive)
        unused = (labels == IGNORED)[:, None]
        return cost.masked_fill_(unused, 0).sum(), slope.masked_fill_(unused, 0)


def positive_costs(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Logits -> (1 - p)^gamma (-ln p) of each, and its slope."""
    cost, power = F.softplus(-x), torch.exp(-gamma * F.softplus(x))
    return power * cost, -power * (gamma * x.sigmoid() * cost + (-x).sigmoid())


def negative_costs(x: Tensor, gamma: float, margin: float) -> tuple[Tensor, Tensor]:
    """Logits -> m^gamma (-ln(1 - m)) of each, m = max(p - margin, 0), and its slope."""
    p = x.sigmoid()
    m = (p - margin).clamp(min=0)
    log_rest = F.logsigmoid(-x)  # ln(1 - p)
    # ln(1 - m) = ln(1 - p + margin), without the cancellation at p near 1.
    log_kept = torch.logaddexp(log_rest, x.new_tensor(math.log(margin) if margin else -math.inf))
    cost, power = -log_kept.clamp(max=0), m.pow(gamma)
    per_m = torch.where(m > 0, cost / m, 1.0)  # -> 1 as m -> 0; m^(gamma - 1) would be infinite for gamma < 1
    slope = power * p * (gamma * per_m * (-x).sigmoid() + torch.exp(log_rest - log_kept))
    return power * cost, slope.masked_fill_(m <= 0, 0)
