"""The contracts of class loss, box loss and normalizer. Every loss returns a sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detkit.coders.base import BoxCoder


class Loss(nn.Module):
    """The base of both losses: a loss may keep running statistics that change once per step. Most losses keep none.

    A loss with statistics calls `accumulate` in every `forward` while training, with sums over its inputs, empty or
    not: the ranks must agree on how many numbers there are to add. The trainer adds them up over micro-batches and
    ranks and passes the totals to `end_step`, where the loss updates a buffer. So the statistics are the same on
    every rank, are part of the checkpoint, and do not depend on how a batch is divided. A training loop of your own
    calls `DenseDetector.end_step`.
    """

    _accumulated: Tensor | None = None

    def accumulate(self, sums: Tensor) -> None:
        """Adds (S,) sums of a micro-batch to the sums of the step; S is always the same, no gradient is kept."""
        sums = sums.detach().double()
        self._accumulated = sums if self._accumulated is None else self._accumulated + sums

    def take_accumulated(self) -> Tensor:
        """(S,) float64 sums that this process accumulated since the last call, empty if there are none."""
        sums, self._accumulated = self._accumulated, None
        return torch.zeros(0, dtype=torch.float64) if sums is None else sums

    def end_step(self, totals: Tensor) -> None:
        """Called once per step under `no_grad` with (S,) totals over all micro-batches and ranks."""


class ClassificationLoss(Loss):
    """Class loss, with all that depends on it: columns, link, prior-bias initialisation, mining.

    uses_quality: `forward` gets soft targets, `quality`. batch_wise: the sum over a batch is not that over its
    images, because the loss looks at them together; say so in its docstring. needs_positives: without a positive the
    sum is 0 and has no gradient, because the loss compares the background with positives; say that, too.
    """

    uses_quality: bool = False
    batch_wise: bool = False
    needs_positives: bool = False

    def num_columns(self, num_classes: int) -> int:
        """Number of class columns C of the head for K classes."""
        raise NotImplementedError

    def initial_bias(self, num_classes: int) -> Tensor:
        """(C,) initial class bias of the head."""
        raise NotImplementedError

    def start_score(self, num_classes: int) -> float | None:
        """Highest class score where the logits are `initial_bias`; None if the loss states none.

        By default the attribute `prior`, if there is one. Override this if the link spreads the prior over the
        classes, or if its scores are more than a probability.
        """
        prior: float | None = getattr(self, "prior", None)
        return prior

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) logits -> (..., K) scores in [0, 1]: the loss's own link."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Logits (B, A, C) and labels (B, A) (class, BACKGROUND or IGNORED) -> scalar sum.

        quality: (B, A) float32 in [0, 1], the target score of each positive, 0 elsewhere; None unless `uses_quality`.
        """
        raise NotImplementedError


class BoxLoss(Loss):
    """Compares predicted with true boxes of the positives, in delta space or in box space."""

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """Predicted deltas (P, 4), their anchors (P, 4), true boxes (P, 4) -> scalar sum."""
        raise NotImplementedError


class Normalizer(nn.Module):
    """Determines what the summed losses are divided by.

    meaning: the divisor in words, for the header of a run.
    """

    meaning: str = ""

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) of a micro-batch -> scalar that is added to the total of the step: its number of positives."""
        return (labels >= 0).sum()

    def divisor(self, total: Tensor) -> Tensor:
        """Total over all micro-batches and ranks (float64 scalar) -> divisor of the gradients, above zero.

        Called once per step under `no_grad`; a normalizer with running statistics updates them here.
        """
        return total.clamp(min=1)

    def image_weights(self, labels: Tensor) -> Tensor | None:
        """Labels (B, A) of a micro-batch -> (B,) factors on the loss sums of each image; None: all are 1."""
        return None
