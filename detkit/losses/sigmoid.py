"""The base of class losses with one sigmoid per class, and what several losses check and convert."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit.losses.base import ClassificationLoss
from detkit.registry import NonNegative, OpenFraction, enforce_bounds


@enforce_bounds
class SigmoidLoss(ClassificationLoss):
    """K columns, and the sigmoid as link; background is a low score of all classes.

    Args:
        prior: foreground probability that every anchor starts with (1708.02002, section 4.1).
        weight: factor on the sum.
    """

    def __init__(self, *, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.prior, self.weight = prior, weight

    def num_columns(self, num_classes: int) -> int:
        return num_classes

    def initial_bias(self, num_classes: int) -> Tensor:
        return torch.full((num_classes,), math.log(self.prior / (1 - self.prior)))

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


def check_shapes(logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> None:
    """Raises ValueError unless logits are (B, A, C) and labels, and quality where there is one, (B, A)."""
    for name, other in (("labels", labels), ("quality", quality)):
        if other is not None and (logits.dim() != 3 or other.shape != logits.shape[:-1]):
            raise ValueError(f"{name} {tuple(other.shape)} do not fit logits {tuple(logits.shape)}")


def to_float32(logits: Tensor) -> Tensor:
    """Logits in float32; float64 stays."""
    return logits if logits.dtype == torch.float64 else logits.float()
