"""Whether the parts of a detector's losses can work together."""

from __future__ import annotations

from detkit.assigners.base import Assigner
from detkit.coders.base import BoxCoder
from detkit.detectors.terms import ALL, BOX, BOXES, CLASSIFICATION, QUALITY, LossParts
from detkit.losses.base import BoxLoss, can_weigh


def check_together(parts: LossParts, coder: BoxCoder, assigner: Assigner) -> None:
    """Raises ValueError for parts of the losses that can't work together, or with coder or assigner."""
    check_joint(parts)
    follow(parts, assigner)
    if parts.box is not None:
        check_box(parts.box, parts, coder)
        check_background(parts)
        check_divisors(parts)
        check_terms(parts, coder)


def check_box(loss: BoxLoss, parts: LossParts, coder: BoxCoder) -> None:
    """Raises ValueError if the box loss can't compare the coder's columns, or can't weigh boxes and has to."""
    if loss.in_deltas and coder.num_columns != 4:
        raise ValueError(
            f"losses.box: {type(loss).__name__} compares the 4 columns of a box one by one, but "
            f"{type(coder).__name__} has {coder.num_columns}: use a loss on boxes, such as GIoULoss"
        )
    if parts.box_weight is not None and not can_weigh(loss):
        raise ValueError(
            f"losses.box: {type(loss).__name__} can't weigh its boxes, as losses.box_weight wants: "
            "its forward needs the argument `weights`"
        )


def check_background(parts: LossParts) -> None:
    """Raises ValueError if no part learns what background is."""
    if parts.classification.positives_only and (parts.quality is None or not parts.quality.teaches_background):
        nor = "" if parts.quality is None else f", nor does {type(parts.quality).__name__}"
        raise ValueError(
            f"losses.classification: {type(parts.classification).__name__} teaches nothing about the background{nor}: "
            "set losses.quality: {type: ObjectnessLoss}, or use another loss, such as QualityFocalLoss"
        )


def check_divisors(parts: LossParts) -> None:
    """Raises ValueError for a normalizer that has nothing to count or to divide."""
    keys = {ALL: "normalizer", BOXES: "box_normalizer", QUALITY: "quality_normalizer"}
    for name, normalizer in parts.normalizers().items():
        if name in keys and normalizer.counts == "weights" and parts.box_weight is None:
            raise ValueError(
                f"losses.{keys[name]}: {type(normalizer).__name__} sums the weights of losses.box_weight: set one"
            )
    if parts.quality is None and parts.quality_normalizer is not None:
        raise ValueError(
            "losses.quality_normalizer: there is no losses.quality for it to divide: set one, or remove it"
        )


def check_terms(parts: LossParts, coder: BoxCoder) -> None:
    """Raises ValueError if an auxiliary loss can't work with the coder, or two terms have one name."""
    for loss in parts.auxiliary:
        if missing := [name for name in loss.of_coder if not hasattr(coder, name)]:
            raise ValueError(
                f"losses.auxiliary: {type(loss).__name__} needs a coder with {', '.join(missing)}, such as "
                f"DistributionCoder, not {type(coder).__name__}"
            )
        if loss.in_deltas and coder.num_columns != 4:
            raise ValueError(
                f"losses.auxiliary: {type(loss).__name__} compares the 4 columns of a box one by one, but "
                f"{type(coder).__name__} has {coder.num_columns}: remove it, or use a coder of 4 columns"
            )
    names = [CLASSIFICATION, BOX, QUALITY, *(loss.name for loss in parts.auxiliary)]
    if twice := sorted({name for name in names if names.count(name) > 1 or not name}):
        raise ValueError(f"losses.auxiliary: {', '.join(map(repr, twice))}: every term needs a name of its own")


def follow(parts: LossParts, assigner: Assigner) -> None:
    """Tells the losses when the assigner changes; ValueError if one waits for that in vain."""
    for key, part in (("losses.classification", parts.classification), ("losses.box_weight", parts.box_weight)):
        try:
            if part is not None:
                part.follow(assigner.changes_at)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def check_joint(parts: LossParts) -> None:
    """Raises ValueError unless there is a box loss, or a joint loss and nothing beside it."""
    if not parts.classification.joint:
        if parts.box is None:
            raise ValueError("losses.box: missing: give it a `type`, such as GIoULoss")
        return
    beside = {
        "box": parts.box,
        "box_normalizer": parts.box_normalizer,
        "box_weight": parts.box_weight,
        "quality": parts.quality,
        "auxiliary": parts.auxiliary or None,
    }
    if extra := [name for name, part in beside.items() if part is not None]:
        raise ValueError(
            f"losses.{extra[0]}: {type(parts.classification).__name__} is a loss of classes and boxes together: "
            f"set losses.{extra[0]}: null"
        )
