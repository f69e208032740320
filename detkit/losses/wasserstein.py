"""The normalised Wasserstein distance between boxes as Gaussians (2110.13389)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.iou import OverlapLoss
from detkit.registry import BOX_LOSSES, NonNegative, Positive

LEAST_DISTANCE = 1e-6
"""Smallest Wasserstein distance in pixels: the slope of a square root is infinite at 0."""


@BOX_LOSSES.register()
class NWDLoss(OverlapLoss):
    """1 - exp(-W / size), with the Wasserstein distance W of the boxes as Gaussians: for tiny objects (2110.13389).

    W^2 = dx^2 + dy^2 + (dw / 2)^2 + (dh / 2)^2, in pixels, of centres and sides; so a tiny box next to its object has a
    gradient, overlap or not. Unlike IoU it depends on scale: a box of a large object that is a few `size` away has
    next to no gradient.

    Args:
        size: about the mean side of the objects in the network's input, pixels; the paper's constant C, and its value
            for AI-TOD.
        weight: factor on the sum.
    """

    def __init__(self, *, size: Positive = 12.7, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.size = size

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        return 1 - torch.exp(-wasserstein_distance(predicted, boxes) / self.size)


def wasserstein_distance(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4) -> (...) pixels; at least LEAST_DISTANCE, without a gradient there."""
    squares = (box_ops.centres(a) - box_ops.centres(b)).square()
    squares = squares + ((box_ops.sides(a) - box_ops.sides(b)) / 2).square()
    return squares.sum(dim=-1).clamp(min=LEAST_DISTANCE**2).sqrt()
