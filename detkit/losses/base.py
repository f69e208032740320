"""The contracts of the two losses and of the normaliser. Every loss returns a sum."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.coders.base import BoxCoder


class ClassificationLoss(nn.Module):
    """Owns everything that belongs to it: columns, link, prior-bias initialisation, mining.

    uses_quality: it wants soft targets, so `forward` is handed `quality`.
    """

    uses_quality: bool = False

    def num_columns(self, num_classes: int) -> int:
        """Class columns C of the head for K classes."""
        raise NotImplementedError

    def initial_bias(self, num_classes: int) -> Tensor:
        """(C,) the head's class bias at the start."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) logits -> (..., K) scores in [0, 1]: the loss's own link."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Logits (B, A, C) and labels (B, A) (class, BACKGROUND or IGNORED) -> scalar sum.

        quality: (B, A) float32 in [0, 1], the score that each positive is to reach, 0 elsewhere; None
        unless `uses_quality`.
        """
        raise NotImplementedError


class BoxLoss(nn.Module):
    """Compares predicted with true boxes of positive anchors, in delta space or in box space."""

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """Predicted deltas (P, 4), their anchors (P, 4), true boxes (P, 4) -> scalar sum."""
        raise NotImplementedError


class Normalizer(nn.Module):
    """Says what the summed losses are divided by."""

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) of a micro-batch -> scalar, what it adds to the divisor."""
        raise NotImplementedError
