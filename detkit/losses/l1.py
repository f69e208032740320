"""L1, smooth L1 (1504.08083, equation 3), Huber and balanced L1 (1904.02701, section 3.3) on deltas."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss, weighted_sum
from detkit.registry import BOX_LOSSES, NonNegative, Positive

LARGEST_EXPONENT = 88
"""exp of a larger number overflows float32."""


class DeltaLoss(BoxLoss):
    """Compares predicted with encoded deltas, number by number.

    weight: factor on the sum, which a subclass sets.
    """

    in_deltas = True
    weight: float

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        encoded, reduction = coder.encode(boxes, anchors), "sum" if weights is None else "none"
        return self.weight * weighted_sum(self.compare(deltas.to(anchors.dtype), encoded, reduction), weights)

    def compare(self, deltas: Tensor, encoded: Tensor, reduction: str) -> Tensor:
        """Deltas and encoded boxes (P, 4) -> costs (P, 4); their sum may be given where `reduction` is "sum"."""
        raise NotImplementedError


@BOX_LOSSES.register()
class SmoothL1Loss(DeltaLoss):
    """Smooth L1 loss between predicted and encoded deltas (1504.08083, equation 3).

    Args:
        beta: difference below which the loss is quadratic; above it is linear.
        weight: factor on the sum.
    """

    def __init__(self, *, beta: NonNegative = 0.1, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.beta, self.weight = beta, weight

    def compare(self, deltas: Tensor, encoded: Tensor, reduction: str) -> Tensor:
        return F.smooth_l1_loss(deltas, encoded, reduction=reduction, beta=self.beta)


@BOX_LOSSES.register()
class HuberLoss(DeltaLoss):
    """Huber loss between predicted and encoded deltas: x^2 / 2 up to `beta`, beta (|x| - beta / 2) above.

    It is `beta` times `SmoothL1Loss`, so its gradient is at most `beta` instead of 1: their weights differ by that
    factor.

    Source: Huber, Robust estimation of a location parameter, 1964; EfficientDet (1911.09070) trains with it.

    Args:
        beta: difference below which the loss is quadratic; above it is linear.
        weight: factor on the sum.
    """

    def __init__(self, *, beta: Positive = 0.1, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.beta, self.weight = beta, weight

    def compare(self, deltas: Tensor, encoded: Tensor, reduction: str) -> Tensor:
        return F.huber_loss(deltas, encoded, reduction=reduction, delta=self.beta)


@BOX_LOSSES.register()
class L1Loss(DeltaLoss):
    """Absolute difference between predicted and encoded deltas.

    Args:
        weight: factor on the sum.
    """

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def compare(self, deltas: Tensor, encoded: Tensor, reduction: str) -> Tensor:
        return F.l1_loss(deltas, encoded, reduction=reduction)


@BOX_LOSSES.register()
class BalancedL1Loss(DeltaLoss):
    """L1 with the gradient alpha ln(b |x| / beta + 1) up to `beta` and `gamma` above, b = exp(gamma / alpha) - 1.

    Source: 1904.02701, section 3.3.

    Args:
        alpha: a smaller one gives accurate predictions more gradient.
        gamma: gradient of large differences.
        beta: difference at which the two parts join; the paper's equation 8 has 1. Another one stretches the curve
            along x, so that value and gradient stay continuous.
        weight: factor on the sum.
    """

    def __init__(
        self, *, alpha: Positive = 0.5, gamma: Positive = 1.5, beta: Positive = 1.0, weight: NonNegative = 1.0
    ) -> None:
        super().__init__()
        if gamma / alpha > LARGEST_EXPONENT:
            raise ValueError(
                f"alpha: {alpha} must be at least gamma / {LARGEST_EXPONENT}: exp(gamma / alpha) overflows"
            )
        self.alpha, self.gamma, self.beta, self.weight = alpha, gamma, beta, weight

    def compare(self, deltas: Tensor, encoded: Tensor, reduction: str) -> Tensor:
        return balanced_l1(deltas - encoded, self.alpha, self.gamma, self.beta)


def balanced_l1(difference: Tensor, alpha: float, gamma: float, beta: float) -> Tensor:
    """Differences of any shape -> their costs: the integral of the gradient above."""
    b = math.expm1(gamma / alpha)
    x = difference.abs() / beta
    near = x.clamp(max=1)
    curve = alpha * ((near + 1 / b) * torch.log1p(b * near) - near)
    return beta * (curve + gamma * (x - near))
