"""Whether the parts of a detector's losses can work together."""

from __future__ import annotations

from detkit.coders.base import BoxCoder
from detkit.detectors.terms import ALL, BOX, BOXES, CLASSIFICATION, QUALITY, LossParts
from detkit.losses.base import can_weigh


def check_together(parts: LossParts, coder: BoxCoder) -> None:
    """Raises ValueError for parts of the losses that can't work together."""
    check_joint(parts)
    if parts.box is None:
        return
    if parts.box.in_deltas and coder.num_columns != 4:
        raise ValueError(
            f"losses.box: {type(parts.box).__name__} compares the 4 columns of a box one by one, but "
            f"{type(coder).__name__} has {coder.num_columns}: use a loss on boxes, such as GIoULoss"
        )
    if parts.box_weight is not None and not can_weigh(parts.box):
        raise ValueError(
            f"losses.box: {type(parts.box).__name__} can't weigh its boxes, as losses.box_weight wants: "
            "its forward needs the argument `weights`"
        )
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
    for loss in parts.auxiliary:
        if missing := [name for name in loss.of_coder if not hasattr(coder, name)]:
            raise ValueError(
                f"losses.auxiliary: {type(loss).__name__} needs a coder with {', '.join(missing)}, such as "
                f"DistributionCoder, not {type(coder).__name__}"
            )
    names = [CLASSIFICATION, BOX, QUALITY, *(loss.name for loss in parts.auxiliary)]
    if twice := sorted({name for name in names if names.count(name) > 1 or not name}):
        raise ValueError(f"losses.auxiliary: {', '.join(map(repr, twice))}: every term needs a name of its own")


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
