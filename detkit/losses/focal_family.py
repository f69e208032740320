"""Focal loss with gamma and factor per class, and with the first term of PolyLoss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.sigmoid import check_shapes, to_float32
from detkit.structures import IGNORED


class _WithGradient(torch.autograd.Function):
    """Attaches a gradient that is known in advance: backward needs one copy of the logits and no more."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return total.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream).to(ctx.dtype), None, None


def with_gradient(logits: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
    """`total` with a graph in which d total / d logits is `gradient` (float32); can be differentiated once.

    The gradient is rounded to the dtype of the logits only after it was multiplied by the upstream factor, the
    loss scale.
    """
    result: Tensor = _WithGradient.apply(logits, total, gradient)  # type: ignore[no-untyped-call]
    return result


def focal_family_sum(
    logits: Tensor, labels: Tensor, alpha: float | None, gamma: Tensor, factor: Tensor, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Logits (B, A, C), labels (B, A), gamma and factor (C,) -> scalar sum and (2, C) sums of the gradient's magnitude.

    An entry costs alpha_t (factor w^gamma (-log(1 - w)) + epsilon w^(gamma + 1)), w = 1 - p_t.
    The gradient's magnitude is summed over positive (row 0) and negative entries (row 1) of each column.
    Works image by image, so that besides the gradient little more than one image's logits is held.
    """
    check_shapes(logits, labels)
    with torch.no_grad():
        total = to_float32(logits.new_zeros(()))
        gradient = torch.empty_like(logits, dtype=total.dtype)
        sizes = total.new_zeros((2, logits.shape[-1]), dtype=torch.float64)
        gamma, factor = gamma.to(total), factor.to(total)
        for i, (x, y) in enumerate(zip(to_float32(logits.detach()), labels, strict=True)):
            value, slope = _one_image(x, y, alpha, gamma, factor, epsilon)
            total = total + value
            gradient[i] = slope
            sizes += torch.stack([-slope.clamp(max=0).sum(dim=0), slope.clamp(min=0).sum(dim=0)])
    return with_gradient(logits, total, gradient), sizes


def _one_image(
    x: Tensor, labels: Tensor, alpha: float | None, gamma: Tensor, factor: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Logits (A, C) and labels (A,) -> sum and gradient (A, C)."""
    for_positive, for_negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    positive, column = (labels >= 0)[:, None], labels.clamp(min=0)[:, None]
    z = _flip(x, column, positive)
    w, cost = z.sigmoid(), F.softplus(z)
    power = torch.exp(-gamma * F.softplus(-z))
    weight = torch.where(labels == IGNORED, 0.0, for_negative)[:, None].to(x)
    weight = weight.repeat(1, x.shape[1]).scatter_(1, column, weight.masked_fill(positive, for_positive))
    value = (weight * power * (factor * cost + epsilon * w)).sum()
    slope = factor * (gamma * (1 - w) * cost + w) + epsilon * (gamma + 1) * w * (1 - w)
    return value, _flip(weight * power * slope, column, positive)


def _flip(x: Tensor, column: Tensor, positive: Tensor) -> Tensor:
    """A copy with the sign changed at the positives' class columns."""
    picked = x.gather(1, column)
    return x.scatter(1, column, torch.where(positive, -picked, picked))
