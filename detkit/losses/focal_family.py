"""Focal losses with gamma and factor per class (equalized) or with the first term of PolyLoss (poly)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction, Positive
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class EqualizedFocalLoss(SigmoidLoss):
    """Focal loss with gamma_j = gamma + scale (1 - g_j) for class j, times gamma_j / gamma (2201.02593).

    g_j is the accumulated gradient magnitude of the positives of class j over that of its negatives, at most 1:
    a rare class gets a large gamma and, by the factor, keeps the weight of its hard entries. Before the first
    step g is 1 and this is focal loss. The gradient is that of this loss itself. The sums are
    updated once per step, over all ranks, and are part of the checkpoint.

    Args:
        scale: how much gamma grows as g_j falls from 1 to 0.
        alpha: weight of positives; negatives get 1 - alpha. null weighs both alike.
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


@CLASS_LOSSES.register()
class PolyFocalLoss(SigmoidLoss):
    """Focal loss plus epsilon (1 - p_t)^(gamma + 1), both weighted by alpha_t (2204.12511).

    Args:
        epsilon: added to the first coefficient of the loss as a polynomial in 1 - p_t. At -1 that term vanishes: the
            paper's choice for detection on COCO, made there on cross-entropy (Mask R-CNN). Below -1 the loss would
            fall as the prediction gets worse. 0 gives focal loss.
        alpha: weight of positives; negatives get 1 - alpha. null weighs both alike.
        gamma: exponent that fades easy examples.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        epsilon: Annotated[float, Ge(-1)] = -1.0,
        alpha: Fraction | None = 0.25,
        gamma: NonNegative = 2.0,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.epsilon, self.alpha, self.gamma = epsilon, alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        columns = logits.new_ones(logits.shape[-1])
        gamma = columns * self.gamma
        return self.weight * focal_family_sum(logits, labels, self.alpha, gamma, columns, self.epsilon)[0]


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
