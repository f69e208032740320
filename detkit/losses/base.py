"""The contracts of the two losses and of the normaliser. Every loss returns a sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detkit.coders.base import BoxCoder


class Loss(nn.Module):
    """What both losses may do: keep a running figure that changes once a step.

    In every `forward`, while training, such a loss calls `accumulate` with sums over what it was given, be it
    nothing: the ranks must agree on how many numbers there are to add. The trainer
    adds them up over micro-batches and ranks and hands the totals to `end_step`, where the loss updates a
    buffer. So the figure is the same on every rank, stands in the checkpoint, and does not depend on how
    a batch is divided. Who writes a training loop of their own calls `DenseDetector.end_step` there.
    """

    _accumulated: Tensor | None = None

    def accumulate(self, sums: Tensor) -> None:
        """Adds (S,) sums of a micro-batch, without graph, S always the same, to those of the step."""
        sums = sums.detach().double()
        self._accumulated = sums if self._accumulated is None else self._accumulated + sums

    def take_accumulated(self) -> Tensor:
        """(S,) float64, what this process accumulated since the last call; empty if that is nothing."""
        sums, self._accumulated = self._accumulated, None
        return torch.zeros(0, dtype=torch.float64) if sums is None else sums

    def end_step(self, totals: Tensor) -> None:
        """Called once a step under `no_grad` with (S,) totals over all micro-batches and ranks."""


class ClassificationLoss(Loss):
    """Owns everything that belongs to it: columns, link, prior-bias initialisation, mining.

    uses_quality: it wants soft targets, so `forward` is handed `quality`. batch_wise: the sum over a
    batch is not that over its images, as the loss looks at them together; say so in its docstring.
    """

    uses_quality: bool = False
    batch_wise: bool = False

    def num_columns(self, num_classes: int) -> int:
        """Class columns C of the head for K classes."""
        raise NotImplementedError

    def initial_bias(self, num_classes: int) -> Tensor:
        """(C,) the head's class bias at the start."""
        raise NotImplementedError

    def start_score(self, num_classes: int) -> float | None:
        """The highest score of a class where the logits are `initial_bias`; None if a loss states none.

        The attribute `prior`, if there is one. Override this where the link spreads the prior over the classes
        or its scores hold something else besides.
        """
        prior: float | None = getattr(self, "prior", None)
        return prior

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) logits -> (..., K) scores in [0, 1]: the loss's own link."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Logits (B, A, C) and labels (B, A) (class, BACKGROUND or IGNORED) -> scalar sum.

        quality: (B, A) float32 in [0, 1], the score that each positive is to reach, 0 elsewhere; None
        unless `uses_quality`.
        """
        raise NotImplementedError


class BoxLoss(Loss):
    """Compares predicted with true boxes of positive anchors, in delta space or in box space."""

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """Predicted deltas (P, 4), their anchors (P, 4), true boxes (P, 4) -> scalar sum."""
        raise NotImplementedError


class Normalizer(nn.Module):
    """Says what the summed losses are divided by.

    meaning: that in words, for the header of a run.
    """

    meaning: str = ""

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) of a micro-batch -> scalar, what it adds to the total of the step."""
        raise NotImplementedError

    def divisor(self, total: Tensor) -> Tensor:
        """Total over all micro-batches and ranks (float64 scalar) -> what gradients are divided by, above zero.

        Called once a step under `no_grad`; a normaliser with a memory updates it here.
        """
        return total.clamp(min=1)

    def image_weights(self, labels: Tensor) -> Tensor | None:
        """Labels (B, A) of a micro-batch -> (B,) factors on the loss sums of each image; None for all 1."""
        return None
