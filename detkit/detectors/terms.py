"""The loss terms of a detector: what each part of its losses gets, and what its terms are divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detkit.coders.base import BoxCoder
from detkit.losses.base import AuxiliaryLoss, BoxLoss, BoxWeight, ClassificationLoss, Loss, Normalizer, QualityLoss
from detkit.structures import Losses, Match, Positives, Predictions

CLASSIFICATION, BOX, QUALITY = "classification", "box", "quality"
ALL, BOXES = "positives", "boxes"
"""Names of the divisors: of all terms, and of the box term where it has its own."""


@dataclass(frozen=True)
class LossParts:
    """The parts of a detector's losses. box_normalizer: None if box terms are divided as all are."""

    classification: ClassificationLoss
    box: BoxLoss
    normalizer: Normalizer
    box_normalizer: Normalizer | None = None
    box_weight: BoxWeight | None = None
    quality: QualityLoss | None = None
    auxiliary: tuple[AuxiliaryLoss, ...] = ()

    def losses(self) -> dict[str, Loss]:
        """The losses by the name of their term, in a fixed order."""
        named: dict[str, Loss] = {CLASSIFICATION: self.classification, BOX: self.box}
        named |= {} if self.quality is None else {QUALITY: self.quality}
        return named | {loss.name: loss for loss in self.auxiliary}

    def normalizers(self) -> dict[str, Normalizer]:
        """The normalizers by the name of their divisor; the first divides what names no other."""
        return {ALL: self.normalizer} | ({} if self.box_normalizer is None else {BOXES: self.box_normalizer})

    @property
    def uses_quality(self) -> bool:
        """Whether any part needs the target quality of the positives."""
        parts = (self.classification, self.quality, self.box_weight, *self.auxiliary)
        counted = self.normalizer.counts, self.box_normalizer and self.box_normalizer.counts
        return any(part is not None and part.uses_quality for part in parts) or "quality" in counted


@dataclass(frozen=True)
class LossInputs:
    """What the losses of a micro-batch, or of one of its images, get.

    logits, labels, target_quality: (B, A, C), (B, A) and (B, A) or None, for the class loss. quality: (B, A) logits of
    the quality branch or None, and box_labels (B, A), with the positives. weights: (P,) or None. image: (P,) images of
    the positives.
    """

    logits: Tensor
    labels: Tensor
    target_quality: Tensor | None
    quality: Tensor | None
    box_labels: Tensor
    positives: Positives
    weights: Tensor | None
    image: Tensor


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
    )
    weights = None
    if parts.box_weight is not None:
        with torch.no_grad():
            weights = parts.box_weight(positives)
    quality = None if pred.quality is None else pred.quality[..., 0]
    # Only a loss that says so gets soft targets, whoever else uses them.
    soft = match.quality if parts.classification.uses_quality else None
    return LossInputs(pred.logits, match.labels, soft, quality, box_match.labels, positives, weights, image)


def loss_terms(parts: LossParts, coder: BoxCoder, inputs: LossInputs) -> dict[str, Tensor]:
    """The sum of every term, with graph."""
    positives, weights = inputs.positives, inputs.weights
    box = positives.deltas, positives.anchors, positives.boxes, coder
    terms = {
        CLASSIFICATION: parts.classification(inputs.logits, inputs.labels, inputs.target_quality),
        # A loss that can't weigh its boxes never sees the argument.
        BOX: parts.box(*box) if weights is None else parts.box(*box, weights=weights),
    }
    if parts.quality is not None:
        terms[QUALITY] = parts.quality(inputs.quality, inputs.box_labels, positives)
    for loss in parts.auxiliary:
        terms[loss.name] = loss(positives, coder, weights if loss.weighted else None)
    return terms


def losses_of(parts: LossParts, coder: BoxCoder, inputs: LossInputs, match: Match, box_match: Match) -> Losses:
    """All terms of a micro-batch, and what it adds to the divisors."""
    image_weights = parts.normalizer.image_weights(match.labels)
    if image_weights is None:
        terms = loss_terms(parts, coder, inputs)
    else:
        of_images = [loss_terms(parts, coder, image) for image in image_by_image(inputs)]
        stacked = torch.stack([torch.stack(list(image.values())) for image in of_images])
        sums = (image_weights[:, None] * stacked).sum(dim=0).unbind()
        terms = dict(zip(of_images[0], sums, strict=True))
    normalizers = {}
    for (name, part), of in zip(parts.normalizers().items(), (match, box_match), strict=False):
        counted = {"labels": of.labels, "quality": of.quality, "weights": inputs.weights}[part.counts]
        normalizers[name] = part(counted)
    divided_by = {}
    if parts.box_normalizer is not None:
        divided_by = {BOX: BOXES} | {loss.name: BOXES for loss in parts.auxiliary if loss.weighted}
    return Losses(terms, normalizers, divided_by)


def image_by_image(inputs: LossInputs) -> Iterator[LossInputs]:
    """Splits the inputs of the losses of a batch into those of each image."""
    counts = inputs.image.bincount(minlength=len(inputs.labels)).tolist()
    start, whole = 0, inputs.positives
    for i, count in enumerate(counts):
        one, mine = slice(i, i + 1), slice(start, start + count)
        start += count
        rows: dict[str, Any] = {name: None if x is None else x[mine] for name, x in tensors_of(whole).items()}
        positives = replace(
            whole,
            **rows,
            predicted=partial(rows_of, whole.predicted, mine),
            scores=partial(rows_of, whole.scores, mine),
        )
        yield LossInputs(
            inputs.logits[one],
            inputs.labels[one],
            None if inputs.target_quality is None else inputs.target_quality[one],
            None if inputs.quality is None else inputs.quality[one],
            inputs.box_labels[one],
            positives,
            None if inputs.weights is None else inputs.weights[mine],
            inputs.image[mine],
        )


def rows_of(compute: Callable[[], Tensor], rows: slice) -> Tensor:
    """Some rows of what `compute` gives."""
    return compute()[rows]


def tensors_of(positives: Positives) -> dict[str, Tensor | None]:
    """The fields of `Positives` that have a row for each."""
    names = ("labels", "anchors", "boxes", "deltas", "quality", "target_quality")
    return {name: getattr(positives, name) for name in names}


def check_together(parts: LossParts, coder: BoxCoder) -> None:
    """Raises ValueError for parts of the losses that can't work together."""
    if parts.box.in_deltas and coder.num_columns != 4:
        raise ValueError(
            f"losses.box: {type(parts.box).__name__} compares the 4 columns of a box one by one, but "
            f"{type(coder).__name__} has {coder.num_columns}: use a loss on boxes, such as GIoULoss"
        )
    if parts.classification.positives_only and parts.quality is None:
        raise ValueError(
            f"losses.classification: {type(parts.classification).__name__} teaches nothing about the background: set "
            "losses.quality: {type: ObjectnessLoss}, or use another loss, such as QualityFocalLoss"
        )
    for key, normalizer in (("normalizer", parts.normalizer), ("box_normalizer", parts.box_normalizer)):
        if normalizer is not None and normalizer.counts == "weights" and parts.box_weight is None:
            raise ValueError(
                f"losses.{key}: {type(normalizer).__name__} sums the weights of losses.box_weight: set one"
            )
    for loss in parts.auxiliary:
        if missing := [name for name in loss.of_coder if not hasattr(coder, name)]:
            raise ValueError(
                f"losses.auxiliary: {type(loss).__name__} needs a coder with {', '.join(missing)}, such as "
                f"DistributionCoder, not {type(coder).__name__}"
            )
    names = [CLASSIFICATION, BOX, QUALITY, *(loss.name for loss in parts.auxiliary)]
    if twice := sorted({name for name in names if names.count(name) > 1 or not name}):
        raise ValueError(f"losses.auxiliary: {', '.join(map(repr, twice))}: every term needs a name of its own")
