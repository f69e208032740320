"""Balanced L1 on deltas (Libra R-CNN, 1904.02701, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES
from detkit.registry.arguments import LARGEST_FLOAT, within


@BOX_LOSSES.register()
class BalancedL1Loss(BoxLoss):
    """Gradient alpha ln(b |x| / beta + 1) up to `beta`, `gamma` above, with b = exp(gamma / alpha) - 1.

    A smaller alpha gives accurate predictions more gradient. The paper's equation 8 has beta = 1; another
    one stretches it along x, so that value and gradient stay continuous. weight: factor on the sum.
    """

    def __init__(self, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
            if value <= 0:
                raise ValueError(f"{name}: {value} is not positive")
        within("weight", weight, 0, LARGEST_FLOAT)
        self.alpha, self.gamma, self.beta, self.weight = alpha, gamma, beta, weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """See `BoxLoss.forward`."""
        difference = deltas.to(anchors.dtype) - coder.encode(boxes, anchors)
        return self.weight * balanced_l1(difference, self.alpha, self.gamma, self.beta).sum()


def balanced_l1(difference: Tensor, alpha: float, gamma: float, beta: float) -> Tensor:
    """Differences of any shape -> what each costs: the integral of the gradient above."""
    b = math.expm1(gamma / alpha)
    x = difference.abs() / beta
    near = x.clamp(max=1)
    curve = alpha * ((near + 1 / b) * torch.log1p(b * near) - near)
    return beta * (curve + gamma * (x - near))
