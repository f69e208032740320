"""Sigmoid focal loss (1708.02002, equation 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.base import ClassificationLoss
from detkit.registry import CLASS_LOSSES
from detkit.structures import IGNORED


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
        if gamma < 0:
            raise ValueError(f"gamma: {gamma} is negative")
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


def sigmoid_focal_sum(logits: Tensor, labels: Tensor, alpha: float | None, gamma: float) -> Tensor:
    """Logits (..., K), labels (...) (class, BACKGROUND or IGNORED) -> scalar sum, in float32 or wider.

    With f(z) = sigmoid(z)^gamma * softplus(z), a negative costs (1 - alpha) f(x) and a positive
    alpha f(-x): one formula over all entries, no one-hot target. Value and gradient come out of the
    same pass; the backward only scales the stored gradient.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit logits {tuple(logits.shape)}")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    total: Tensor = _SigmoidFocalSum.apply(wide, labels, alpha, gamma)  # type: ignore[no-untyped-call]
    return total


class _SigmoidFocalSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, alpha: float | None, gamma: float) -> Tensor:
        on_positive, on_negative = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
        columns = logits.shape[-1]
        labels = labels.reshape(-1)
        rows = (labels >= 0).nonzero()[:, 0]
        entries = rows * columns + labels[rows]
        z = logits.detach().reshape(-1, columns).masked_fill((labels == IGNORED)[:, None], -1e4)
        z = z.view(-1)
        z[entries] = -z[entries]
        p = z.sigmoid()
        log_term = F.softplus(z)
        power = p.pow(gamma)
        values = power * log_term
        total = on_negative * values.sum() + (on_positive - on_negative) * values[entries].sum()
        # f'(z) = p^gamma (gamma (1 - p) softplus(z) + p), built in the memory of `values`.
        gradient = values.fill_(1.0).sub_(p).mul_(gamma).mul_(log_term).add_(p).mul_(power)
        at_positives = gradient[entries] * -on_positive
        gradient.mul_(on_negative)[entries] = at_positives
        ctx.save_for_backward(gradient.view_as(logits))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None, None
