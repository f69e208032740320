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


@BOX_LOSSES.register()
class SmoothL1Loss(BoxLoss):
    """Smooth L1 loss between predicted and encoded deltas (1504.08083, equation 3).

    Args:
        beta: difference below which the loss is quadratic; above it is linear.
        weight: factor on the sum.
    """

    in_deltas = True

    def __init__(self, *, beta: NonNegative = 0.1, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.beta, self.weight = beta, weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        deltas = deltas.to(anchors.dtype)
        encoded, reduction = coder.encode(boxes, anchors), "sum" if weights is None else "none"
        return self.weight * weighted_sum(
            F.smooth_l1_loss(deltas, encoded, reduction=reduction, beta=self.beta), weights
        )


@BOX_LOSSES.register()
class HuberLoss(BoxLoss):
    """Huber loss between predicted and encoded deltas: x^2 / 2 up to `beta`, beta (|x| - beta / 2) above.

    It is `beta` times `SmoothL1Loss`, so its gradient is at most `beta` instead of 1: their weights differ by that
    factor.

    Source: Huber, Robust estimation of a location parameter, 1964; EfficientDet (1911.09070) trains with it.

    Args:
        beta: difference below which the loss is quadratic; above it is linear.
        weight: factor on the sum.
    """

    in_deltas = True

    def __init__(self, *, beta: Positive = 0.1, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.beta, self.weight = beta, weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        deltas = deltas.to(anchors.dtype)
        encoded, reduction = coder.encode(boxes, anchors), "sum" if weights is None else "none"
        return self.weight * weighted_sum(F.huber_loss(deltas, encoded, reduction=reduction, delta=self.beta), weights)


@BOX_LOSSES.register()
class L1Loss(BoxLoss):
    """Absolute difference between predicted and encoded deltas.

    Args:
        weight: factor on the sum.
    """

    in_deltas = True

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        deltas = deltas.to(anchors.dtype)
        encoded, reduction = coder.encode(boxes, anchors), "sum" if weights is None else "none"
        return self.weight * weighted_sum(F.l1_loss(deltas, encoded, reduction=reduction), weights)


@BOX_LOSSES.register()
class BalancedL1Loss(BoxLoss):
    """L1 with the gradient alpha ln(b |x| / beta + 1) up to `beta` and `gamma` above, b = exp(gamma / alpha) - 1.

    Source: 1904.02701, section 3.3.

    Args:
        alpha: a smaller one gives accurate predictions more gradient.
        gamma: gradient of large differences.
        beta: difference at which the two parts join; the paper's equation 8 has 1. Another one stretches the curve
            along x, so that value and gradient stay continuous.
        weight: factor on the sum.
    """

    in_deltas = True

    def __init__(
        self, *, alpha: Positive = 0.5, gamma: Positive = 1.5, beta: Positive = 1.0, weight: NonNegative = 1.0
    ) -> None:
        super().__init__()
        if gamma / alpha > LARGEST_EXPONENT:
            raise ValueError(
                f"alpha: {alpha} must be at least gamma / {LARGEST_EXPONENT}: exp(gamma / alpha) overflows"
            )
        self.alpha, self.gamma, self.beta, self.weight = alpha, gamma, beta, weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        difference = deltas.to(anchors.dtype) - coder.encode(boxes, anchors)
        return self.weight * weighted_sum(balanced_l1(difference, self.alpha, self.gamma, self.beta), weights)


def balanced_l1(difference: Tensor, alpha: float, gamma: float, beta: float) -> Tensor:
    """Differences of any shape -> their costs: the integral of the gradient above."""
    b = math.expm1(gamma / alpha)
    x = difference.abs() / beta
    near = x.clamp(max=1)
    curve = alpha * ((near + 1 / b) * torch.log1p(b * near) - near)
    return beta * (curve + gamma * (x - near))
