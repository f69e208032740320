"""The contracts of all that the losses are made of. Every loss returns a sum."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from detkit.coders.base import BoxCoder
from detkit.structures import Losses, Positives, Predictions, Targets


class Loss(nn.Module):
    """The base of all losses: a loss may keep running statistics that change once per step. Most losses keep none.

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
    positives_only: the background is left to a quality branch, so the loss needs one; say that, too.
    uses_progress: `forward` also takes `progress`, the fraction of the training that is done. joint: it is a
    `JointLoss`. columns_apart: every column is the logit of a probability of its own, by a sigmoid, so that a head may
    give the logit of its product with another one; false where the link is a softmax.
    """

    uses_quality: bool = False
    batch_wise: bool = False
    needs_positives: bool = False
    positives_only: bool = False
    uses_progress: bool = False
    joint: bool = False
    columns_apart: bool = True

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

    def follow(self, changes_at: float | None) -> None:
        """Told `Assigner.changes_at` of the detector, for a loss that changes with the assigner; ValueError if not."""

    def takes_quality(self, progress: float) -> bool:
        """Whether `forward` learns soft targets at this fraction of the training; a loss may change."""
        return self.uses_quality

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) logits -> (..., K) scores in [0, 1]: the loss's own link."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Logits (B, A, C) and labels (B, A) (class, BACKGROUND or IGNORED) -> scalar sum.

        quality: (B, A) float32 in [0, 1], the target score of each positive, 0 elsewhere; None unless `uses_quality`.
        """
        raise NotImplementedError


class JointLoss(ClassificationLoss):
    """A loss of classes and boxes together, in place of all that an assigner and losses of single anchors do.

    For studies of assignment that weigh the anchors of an object against each other (bags). `losses.box` is null with
    it; the config's assigner and `losses.normalizer` do not act on the training. As a class loss it owns columns, link
    and prior bias.
    """

    joint = True

    def divisors(self) -> Mapping[str, Normalizer]:
        """The divisors of its terms by name, always the same; each is given the totals of `joint_losses`."""
        raise NotImplementedError

    def joint_losses(self, pred: Predictions, targets: list[Targets], coder: BoxCoder) -> Losses:
        """Sums of the terms over the images of a micro-batch, and what they add to each of `divisors`.

        Terms are sums over images, so that any split of a batch gives the same. All outputs of the head must be part
        of the graph, whether there are objects or not.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Raises ValueError: there is no loss of labels."""
        raise ValueError(
            f"losses.classification: {type(self).__name__} looks at classes and boxes together: it has no loss of "
            "labelled anchors that could be shown or measured by itself"
        )


class BoxLoss(Loss):
    """Compares predicted with true boxes of the positives, in delta space or in box space.

    in_deltas: the loss compares the four columns with `BoxCoder.encode`, so it needs a coder of four columns.
    """

    in_deltas: bool = False

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        """Predicted deltas (P, D), their anchors (P, 4), true boxes (P, 4) -> scalar sum.

        weights: (P,) factors on the cost of each box, from `losses.box_weight`; None, or left out: all are 1. A loss
        without this argument can't be weighted.
        """
        raise NotImplementedError


class QualityLoss(Loss):
    """Trains the quality branch, one logit an anchor, and combines it with the class scores.

    uses_quality: the targets are the assigner's quality, or else the IoU of the predicted box.
    bias: initial bias of the branch. teaches_background: it learns from the background, too, so that a class loss of
    positives alone may leave that to it.
    """

    uses_quality: bool = False
    teaches_background: bool = False
    bias: float = 0.0

    def forward(self, quality: Tensor, labels: Tensor, positives: Positives) -> Tensor:
        """Logits (B, A) of the branch, labels (B, A) as in `Match`, and the positives -> scalar sum."""
        raise NotImplementedError

    def combine(self, scores: Tensor, quality: Tensor) -> Tensor:
        """Class scores (..., K) in [0, 1] and quality logits (..., 1) -> scores (..., K) to rank detections by."""
        raise NotImplementedError


class AuxiliaryLoss(Loss):
    """A term beside class and box, over the positives.

    name: of the term, in the progress bar, the metrics and reports. weighted: it is weighted and divided as the box
    loss is; else it is divided as the class loss is. uses_quality: it reads `Positives.target_quality`. of_coder: names
    of what it needs of the coder beside the contract. in_deltas: it compares columns with `BoxCoder.encode`, so it
    needs a coder of four columns. normalizer: divides the term alone; None: see `weighted`.
    """

    name: str = ""
    weighted: bool = True
    of_coder: tuple[str, ...] = ()
    in_deltas: bool = False
    uses_quality: bool = False

    def __init__(self, *, normalizer: Normalizer | None = None) -> None:
        super().__init__()
        self.normalizer = normalizer

    def weigh(self, positives: Positives, coder: BoxCoder, weights: Tensor | None) -> Tensor | None:
        """`losses.box_weight`'s factors (P,), or None -> those of this term; called under `no_grad`."""
        return weights if self.weighted else None

    def forward(self, positives: Positives, coder: BoxCoder, weights: Tensor | None = None) -> Tensor:
        """The P positives and (P,) factors on the cost of each, or None -> scalar sum."""
        raise NotImplementedError


class BoxWeight(nn.Module):
    """Weighs the positives in the box loss. uses_quality: it reads `Positives.target_quality`."""

    uses_quality: bool = False

    def follow(self, changes_at: float | None) -> None:
        """Told `Assigner.changes_at` of the detector, for weights that change with the assigner; ValueError if not."""

    def forward(self, positives: Positives) -> Tensor:
        """The P positives -> (P,) factors, at least 0; called under `no_grad`."""
        raise NotImplementedError


class Normalizer(nn.Module):
    """Determines what the summed losses are divided by.

    meaning: the divisor in words, for the header of a run. counts: what `forward` gets: the `labels` (B, A), the target
    `quality` (B, A) of the positives, 0 elsewhere, or the `weights` (P,) of `losses.box_weight`.
    """

    meaning: str = ""
    counts: Literal["labels", "quality", "weights"] = "labels"

    def forward(self, values: Tensor) -> Tensor:
        """What it counts, of a micro-batch -> scalar or (S,) numbers that are added to the totals of the step.

        By default the number of positives.
        """
        return (values >= 0).sum()

    def count(self, values: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Like `forward`, with the number of anchors on each level, for normalizers that look at levels."""
        numbers: Tensor = self(values)
        return numbers

    def level_weights(self) -> Tensor | None:
        """(L,) factors on the sums of what it divides, by level, finest first; None: all are 1.

        They must not depend on the step itself, so that any split of a batch has the same.
        """
        return None

    def divisor(self, total: Tensor) -> Tensor:
        """Totals over all micro-batches and ranks (float64, scalar or (S,)) -> divisor of the gradients, above zero.

        Called once per step under `no_grad`; a normalizer with running statistics updates them here.
        """
        return total.clamp(min=1)

    def image_weights(self, labels: Tensor) -> Tensor | None:
        """Labels (B, A) of a micro-batch -> (B,) factors on the loss sums of each image; None: all are 1."""
        return None


def change(until: float | None, changes_at: float | None = None) -> float:
    """The fraction of the training at which a rule changes: `until`, or where it is None that of the assigner."""
    found = changes_at if until is None else until
    if found is None:
        raise ValueError(
            "until: null means when the assigner changes, but the assigner does not: give a fraction of the training, "
            "or use WarmupAssigner"
        )
    return found


def can_weigh(loss: BoxLoss) -> bool:
    """Whether a box loss takes `weights`, the fifth argument of `forward`."""
    parameters = list(inspect.signature(loss.forward).parameters.values())
    return len(parameters) > 4 or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def weighted_sum(costs: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of (P,) or (P, n) costs, each box times its weight (P,) where there are weights."""
    if weights is None:
        return costs.sum()
    return (costs.flatten(1).sum(dim=1) * weights if costs.dim() > 1 else costs * weights).sum()
