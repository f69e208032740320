"""What all class losses of one sigmoid a class have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.base import ClassificationLoss


class SigmoidLoss(ClassificationLoss):
    """K columns, the sigmoid as link, and a bias that lets every score start at `prior` (1708.02002, section 4.1).

    weight: factor on the sum.
    """

    def __init__(self, *, prior: float = 0.01, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 < prior < 1:
            raise ValueError(f"prior: {prior} is not a probability between 0 and 1")
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight: {weight} is negative or not finite")
        self.prior, self.weight = prior, weight

    def num_columns(self, num_classes: int) -> int:
        """One column a class; background is the absence of all."""
        return num_classes

    def initial_bias(self, num_classes: int) -> Tensor:
        """(K,) the logit of `prior`."""
        return torch.full((num_classes,), math.log(self.prior / (1 - self.prior)))

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()


def check_alpha(alpha: float | None) -> None:
    """Raises ValueError unless `alpha` is None or a weight between 0 and 1."""
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha: {alpha} is not between 0 and 1")


def check_not_negative(**values: float) -> None:
    """Raises ValueError that names the first value below zero or not finite."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: {value} is negative or not finite")


def check_shapes(logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> None:
    """Raises ValueError unless logits are (B, A, C) and labels, and quality where there is one, (B, A)."""
    for name, other in (("labels", labels), ("quality", quality)):
        if other is not None and (logits.dim() != 3 or other.shape != logits.shape[:-1]):
            raise ValueError(f"{name} {tuple(other.shape)} do not fit logits {tuple(logits.shape)}")


def to_float32(logits: Tensor) -> Tensor:
    """Logits in float32, or float64 if they are that."""
    return logits if logits.dtype == torch.float64 else logits.float()


def background_costs(logits: Tensor) -> Tensor:
    """Logits (B, A, C) -> (B, A), binary cross-entropy of each anchor as background, without graph."""
    return F.softplus(to_float32(logits.detach())).sum(dim=-1)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with targets in [0, 1], entry by entry."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def at_positives(logits: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
    """The P logits of the positives' own classes, in float32, with graph, and their targets, (P,) each.

    The targets are `quality` (B, A) at the positives, 1 where there is none.
    """
    image, row = (labels >= 0).nonzero(as_tuple=True)
    own = to_float32(logits[image, row, labels[image, row]])
    return own, torch.ones_like(own) if quality is None else quality[image, row].to(own.dtype)
