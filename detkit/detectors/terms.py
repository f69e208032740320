"""The loss terms of a detector: what each part of its losses gets, and what its terms are divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detkit.coders.base import BoxCoder
from detkit.losses.base import (
    AuxiliaryLoss,
    BoxLoss,
    BoxWeight,
    ClassificationLoss,
    Loss,
    Normalizer,
    QualityLoss,
)
from detkit.structures import Losses, Match, Positives, Predictions, Targets

CLASSIFICATION, BOX, QUALITY = "classification", "box", "quality"
ALL, BOXES = "positives", "boxes"
"""Names of the divisors: of all terms, and of the box term where it has its own. That of quality is QUALITY."""


@dataclass(frozen=True)
class LossParts:
    """The parts of a detector's losses.

    box: None where `classification` is a joint loss. box_normalizer, quality_normalizer: None if the box terms, the
    quality term, are divided as all are.
    """

    classification: ClassificationLoss
    box: BoxLoss | None
    normalizer: Normalizer
    box_normalizer: Normalizer | None = None
    box_weight: BoxWeight | None = None
    quality: QualityLoss | None = None
    auxiliary: tuple[AuxiliaryLoss, ...] = ()
    quality_normalizer: Normalizer | None = None

    def losses(self) -> dict[str, Loss]:
        """The losses by the name of their term, in a fixed order."""
        named: dict[str, Loss] = {CLASSIFICATION: self.classification}
        named |= {} if self.box is None else {BOX: self.box}
        named |= {} if self.quality is None else {QUALITY: self.quality}
        return named | {loss.name: loss for loss in self.auxiliary}

    def normalizers(self) -> dict[str, Normalizer]:
        """The normalizers by the name of their divisor; the first divides what names no other."""
        if self.classification.joint:
            joint: Any = self.classification
            return dict(joint.divisors())
        own = {BOXES: self.box_normalizer, QUALITY: self.quality_normalizer}
        own |= {loss.name: loss.normalizer for loss in self.auxiliary}
        return {ALL: self.normalizer} | {name: part for name, part in own.items() if part is not None}

    def divided_by(self) -> dict[str, str]:
        """The divisors of the terms that don't take the first."""
        boxes = [] if self.box_normalizer is None else [BOX, *(loss.name for loss in self.auxiliary if loss.weighted)]
        own = [] if self.quality_normalizer is None else [QUALITY]
        own += [loss.name for loss in self.auxiliary if loss.normalizer is not None]
        return dict.fromkeys(boxes, BOXES) | {name: name for name in own}

    @property
    def uses_quality(self) -> bool:
        """Whether any part needs the target quality of the positives."""
        parts = (self.classification, self.quality, self.box_weight, *self.auxiliary)
        counted = [normalizer.counts for normalizer in self.normalizers().values()]
        return any(part is not None and part.uses_quality for part in parts) or "quality" in counted


@dataclass(frozen=True)
class LossInputs:
    """What the losses of a micro-batch, or of one of its images, get.

    logits, labels, target_quality: (B, A, C), (B, A) and (B, A) or None, for the class loss. quality: (B, A) logits of
    the quality branch or None, and box_labels (B, A), with the positives. weights: (P,) or None; auxiliary_weights:
    the same for each auxiliary term. image, row: (P,) images and anchors of the positives.
    """

    logits: Tensor
    labels: Tensor
    target_quality: Tensor | None
    quality: Tensor | None
    box_labels: Tensor
    positives: Positives
    weights: Tensor | None
    auxiliary_weights: dict[str, Tensor | None]
    image: Tensor
    row: Tensor


def loss_inputs(
    parts: LossParts, coder: BoxCoder, pred: Predictions, match: Match, box_match: Match, progress: float
) -> LossInputs:
    """Gathers the positives of a micro-batch and weighs them. box_match: of boxes, where they have an own assigner."""
    image, row = box_match.image, box_match.row
    deltas, anchors = pred.deltas[image, row], pred.anchors[row]
    positives = Positives(
        labels=box_match.classes,
        anchors=anchors,
        boxes=box_match.boxes,
        deltas=deltas,
        quality=None if pred.quality is None else pred.quality[image, row, 0],
        target_quality=None if box_match.quality is None else box_match.quality[image, row],
        predicted=lambda: coder.decode(deltas.to(anchors.dtype), anchors),
        scores=lambda: parts.classification.scores(pred.logits.detach()[image, row].float()),
        progress=progress,
        first=None if pred.first is None else pred.first[image, row],
    )
    with torch.no_grad():
        weights = None if parts.box_weight is None else parts.box_weight(positives)
        of_terms = {loss.name: loss.weigh(positives, coder, weights) for loss in parts.auxiliary}
    quality = None if pred.quality is None else pred.quality[..., 0]
    # Only a loss that says so gets soft targets, whoever else uses them.
    soft = match.quality if parts.classification.takes_quality(progress) else None
    return LossInputs(
        pred.logits, match.labels, soft, quality, box_match.labels, positives, weights, of_terms, image, row
    )


def loss_terms(parts: LossParts, coder: BoxCoder, inputs: LossInputs) -> dict[str, Tensor]:
    """The sum of every term, with graph."""
    positives, weights = inputs.positives, inputs.weights
    assert parts.box is not None, "check_together"
    box = positives.deltas, positives.anchors, positives.boxes, coder
    of_class = {"progress": positives.progress} if parts.classification.uses_progress else {}
    terms = {
        CLASSIFICATION: parts.classification(inputs.logits, inputs.labels, inputs.target_quality, **of_class),
        # A loss that can't weigh its boxes never sees the argument.
        BOX: parts.box(*box) if weights is None else parts.box(*box, weights),
    }
    if parts.quality is not None:
        terms[QUALITY] = parts.quality(inputs.quality, inputs.box_labels, positives)
    for loss in parts.auxiliary:
        terms[loss.name] = loss(positives, coder, inputs.auxiliary_weights[loss.name])
    return terms


def level_terms(parts: LossParts, coder: BoxCoder, inputs: LossInputs, level_sizes: Sequence[int]) -> dict[str, Tensor]:
    """`loss_terms`, with the factors that the normalizers put on the sums of each level."""
    factors = {name: part.level_weights() for name, part in parts.normalizers().items()}
    if all(factor is None for factor in factors.values()):
        return loss_terms(parts, coder, inputs)
    levels = [loss_terms(parts, coder, level) for level in level_by_level(inputs, level_sizes)]
    divided_by, terms = parts.divided_by(), {}
    for name in levels[0]:
        sums, factor = torch.stack([level[name] for level in levels]), factors[divided_by.get(name, ALL)]
        terms[name] = (sums if factor is None else sums * factor[: len(sums)].to(sums)).sum()
    return terms


def losses_of(
    parts: LossParts,
    coder: BoxCoder,
    inputs: LossInputs,
    match: Match,
    box_match: Match,
    level_sizes: Sequence[int],
) -> Losses:
    """All terms of a micro-batch, and what it adds to the divisors."""
    image_weights = parts.normalizer.image_weights(match.labels)
    if image_weights is None:
        terms = level_terms(parts, coder, inputs, level_sizes)
    else:
        of_images = [level_terms(parts, coder, image, level_sizes) for image in image_by_image(inputs)]
        stacked = torch.stack([torch.stack(list(image.values())) for image in of_images])
        sums = (image_weights[:, None] * stacked).sum(dim=0).unbind()
        terms = dict(zip(of_images[0], sums, strict=True))
    normalizers = {}
    for name, part in parts.normalizers().items():
        of = match if name == ALL else box_match
        weighed = inputs.auxiliary_weights.get(name, inputs.weights)
        quality = hard_targets(of.labels) if name == ALL and inputs.target_quality is None else of.quality
        counted = {"labels": of.labels, "quality": quality, "weights": weighed}[part.counts]
        assert counted is not None, "match computes what is counted"
        normalizers[name] = part.count(counted, level_sizes)
    return Losses(terms, normalizers, parts.divided_by())


def hard_targets(labels: Tensor) -> Tensor:
    """Labels (B, A) -> what a class loss without soft targets learns: 1 at positives, 0 elsewhere."""
    return (labels >= 0).float()


def joint_losses(parts: LossParts, coder: BoxCoder, pred: Predictions, targets: list[Targets]) -> Losses:
    """All terms of a micro-batch by the joint loss, and what it adds to its divisors."""
    joint: Any = parts.classification
    losses: Losses = joint.joint_losses(pred, targets, coder)
    return losses


def image_by_image(inputs: LossInputs) -> Iterator[LossInputs]:
    """Splits the inputs of the losses of a batch into those of each image."""
    counts = inputs.image.bincount(minlength=len(inputs.labels)).tolist()
    start = 0
    for i, count in enumerate(counts):
        yield part_of(inputs, slice(i, i + 1), slice(start, start + count))
        start += count


def level_by_level(inputs: LossInputs, level_sizes: Sequence[int]) -> Iterator[LossInputs]:
    """Splits the inputs of the losses into those of each level."""
    start = 0
    for size in level_sizes:
        mine = ((inputs.row >= start) & (inputs.row < start + size)).nonzero()[:, 0]
        yield part_of(inputs, (slice(None), slice(start, start + size)), mine)
        start += size


def part_of(inputs: LossInputs, anchors: slice | tuple[slice, slice], mine: slice | Tensor) -> LossInputs:
    """The inputs at some images, or images and anchors, of (B, A), and the positives that are `mine`."""
    whole = inputs.positives
    rows: dict[str, Any] = {name: None if x is None else x[mine] for name, x in tensors_of(whole).items()}
    positives = replace(
        whole,
        **rows,
        predicted=partial(rows_of, whole.predicted, mine),
        scores=partial(rows_of, whole.scores, mine),
    )
    return LossInputs(
        inputs.logits[anchors],
        inputs.labels[anchors],
        None if inputs.target_quality is None else inputs.target_quality[anchors],
        None if inputs.quality is None else inputs.quality[anchors],
        inputs.box_labels[anchors],
        positives,
        None if inputs.weights is None else inputs.weights[mine],
        {name: None if x is None else x[mine] for name, x in inputs.auxiliary_weights.items()},
        inputs.image[mine],
        inputs.row[mine],
    )


def rows_of(compute: Callable[[], Tensor], rows: slice | Tensor) -> Tensor:
    """Some rows of what `compute` gives."""
    return compute()[rows]


def tensors_of(positives: Positives) -> dict[str, Tensor | None]:
    """The fields of `Positives` that have a row for each."""
    names = ("labels", "anchors", "boxes", "deltas", "quality", "target_quality", "first")
    return {name: getattr(positives, name) for name in names}
