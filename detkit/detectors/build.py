"""Builds a detector from a checked config, part by part in order of dependence."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from detkit import registry
from detkit.anchors.base import AnchorGenerator
from detkit.assigners.base import Assigner
from detkit.backbones.base import Backbone
from detkit.coders.base import BoxCoder
from detkit.config import Config
from detkit.config.raw import short_path
from detkit.detectors.dense import DenseDetector
from detkit.detectors.fit import check_together
from detkit.detectors.terms import LossParts
from detkit.heads.base import Head
from detkit.losses.base import ClassificationLoss
from detkit.necks.base import Neck
from detkit.registry.source import last_line
from detkit.structures import FeatureShape

PROBE_SIDE = 64
"""Side in pixels of the image that a detector is tried out with."""


def build_detector(config: Config, num_classes: int) -> DenseDetector:
    """Builds the detector of a config for K classes, with initial weights.

    Raises ValueError with a table of the levels if the features of a part differ from its `out_shapes`.
    """
    pixels = config.options("pixels")
    backbone, neck, anchors, of_head = build_pyramid(config)
    coder, assigner = registry.CODERS.build(config.coder), registry.ASSIGNERS.build(config.assigner)
    losses = build_losses(config, coder, assigner)
    class_loss = losses.classification
    columns, bias = class_loss.num_columns(num_classes), class_loss.initial_bias(num_classes)
    of_head |= more_of_head(config, coder)
    head = config.build(registry.HEADS, "head", **of_head, num_columns=columns, class_bias=bias)
    check_link(config, head, class_loss)
    detector = DenseDetector(
        pixels=pixels,
        backbone=backbone,
        neck=neck,
        anchors=anchors,
        head=head,
        assigner=assigner,
        coder=coder,
        class_loss=class_loss,
        box_loss=losses.box,
        normalizer=losses.normalizer,
        options=config.options("postprocess"),
        nms=registry.NMS.build(config.nms),
        box_assigner=optional(registry.ASSIGNERS, config, "box_assigner"),
        box_normalizer=losses.box_normalizer,
        box_weight=losses.box_weight,
        quality_loss=losses.quality,
        quality_normalizer=losses.quality_normalizer,
        auxiliary=losses.auxiliary,
    )
    detector.config, detector.num_classes = config, num_classes
    probe(detector)
    return detector


def optional(parts: registry.Registry, config: Config, path: str) -> Any:
    """The part at a path that a config may lack; None if it does."""
    return config.build(parts, path) if path in config else None


def build_losses(config: Config, coder: BoxCoder, assigner: Assigner) -> LossParts:
    """The parts of a config's losses; ValueError with the line of the config if they can't work together."""
    auxiliary = config.losses.auxiliary if "losses.auxiliary" in config else []
    parts = LossParts(
        classification=registry.CLASS_LOSSES.build(config.losses.classification),
        box=optional(registry.BOX_LOSSES, config, "losses.box"),
        normalizer=registry.NORMALIZERS.build(config.losses.normalizer),
        box_normalizer=optional(registry.NORMALIZERS, config, "losses.box_normalizer"),
        box_weight=optional(registry.BOX_WEIGHTS, config, "losses.box_weight"),
        quality=optional(registry.QUALITY_LOSSES, config, "losses.quality"),
        quality_normalizer=optional(registry.NORMALIZERS, config, "losses.quality_normalizer"),
        auxiliary=tuple(registry.AUXILIARY_LOSSES.build(node) for node in auxiliary),
    )
    try:
        check_together(parts, coder, assigner)
    except ValueError as error:
        raise ValueError(f"{config.location(str(error).partition(':')[0])}: {error}") from None
    return parts


def more_of_head(config: Config, coder: BoxCoder) -> dict[str, object]:
    """What a head may take of coder and quality loss; ValueError if they need it and the head can't take it."""
    name, with_quality = str(config.head.type), "losses.quality" in config
    known = registry.HEADS.derived_arguments(name)
    for argument, wanted, why in (
        ("box_columns", coder.num_columns != 4, f"{type(coder).__name__} wants {coder.num_columns} columns a box"),
        ("with_quality", with_quality, "losses.quality wants a quality branch"),
    ):
        if wanted and argument not in known:
            raise ValueError(
                f"{config.location('head')}: head: {why}, but {name} does not take `{argument}`: use a head that does, "
                "such as SharedTowerHead"
            )
    return {"box_columns": coder.num_columns, "with_quality": with_quality}


def check_link(config: Config, head: Head, loss: ClassificationLoss) -> None:
    """Raises ValueError if the head multiplies probabilities that the class loss does not take one by one."""
    if head.multiplies and not loss.columns_apart:
        raise ValueError(
            f"{config.location('losses.classification')}: losses.classification: {type(loss).__name__} takes the "
            f"columns of all classes together, but {config.head.type} multiplies the probability of each by another "
            "one: use a loss with a sigmoid for each, such as SigmoidFocalLoss, or a head that predicts plain logits"
        )


def build_pyramid(config: Config) -> tuple[Backbone, Neck, AnchorGenerator, dict[str, object]]:
    """Backbone, neck and anchors of a config, and the arguments that its head derives from them."""
    backbone = config.build(registry.BACKBONES, "backbone")
    neck = config.build(registry.NECKS, "neck", in_shapes=levels_of("backbone", backbone))
    strides, channels = zip(*((s.stride, s.channels) for s in levels_of("neck", neck).values()), strict=True)
    anchors = config.build(registry.ANCHORS, "anchors", strides=strides)
    return backbone, neck, anchors, {"in_channels": channels, "anchors_per_cell": tuple(anchors.per_cell)}


def check_parts(config: Config) -> None:
    """Raises ValueError if a part of the network does not take its arguments, or the levels of the part before it, or
    if parts of the losses can't work together.

    torch's meta device takes no memory for weights. A part that computes with them can't be built there: it shows what
    is wrong only when the detector is built.
    """
    coder = registry.CODERS.build(config.coder)
    losses = build_losses(config, coder, registry.ASSIGNERS.build(config.assigner))
    with contextlib.suppress(RuntimeError, TypeError), torch.device("meta"):
        *_, of_head = build_pyramid(config)
        of_head |= more_of_head(config, coder)
        head = config.build(registry.HEADS, "head", **of_head, num_columns=1, class_bias=torch.zeros(1))
        check_link(config, head, losses.classification)


def levels_of(slot: str, part: object) -> dict[str, FeatureShape]:
    """The `out_shapes` of a backbone or neck; ValueError that says what to write if it has none."""
    name = type(part).__name__
    shapes = getattr(part, "out_shapes", None)
    if isinstance(shapes, dict) and shapes and all(isinstance(s, FeatureShape) for s in shapes.values()):
        return shapes
    what = "is not set" if shapes is None else f"is {shapes!r}"
    raise ValueError(
        f"{slot}: {name}.out_shapes {what}: its constructor must set the levels of its output, finest first, as in "
        f'self.out_shapes = {{"c3": FeatureShape(channels=128, stride=8), ...}}'
    )


@torch.no_grad()
def probe(detector: DenseDetector) -> None:
    """Runs a small image through backbone and neck and compares every level with its declaration."""
    was_training = detector.training
    detector.eval()
    channels = len(detector.pixels.mean)
    image = torch.zeros(1, channels, PROBE_SIDE, PROBE_SIDE)
    try:
        features = detector.backbone(image)
    except NotImplementedError:
        raise ValueError(f"backbone: {type(detector.backbone).__name__} has no forward method") from None
    except RuntimeError as error:
        file, line = last_line(type(detector.backbone), error)
        where = f" ({short_path(file)}:{line})" if file else ""
        raise ValueError(
            f"backbone: {type(detector.backbone).__name__} can't take an image of {channels} channels (pixels.mean has "
            f"{channels} values), {tuple(image.shape)}: {error}{where}"
        ) from error
    _compare("backbone", type(detector.backbone).__name__, detector.backbone.out_shapes, features)
    pyramid = detector.neck(features)
    _compare("neck", type(detector.neck).__name__, detector.neck.out_shapes, pyramid, detector.anchors.per_cell)
    detector.train(was_training)


def _compare(
    slot: str,
    name: str,
    declared: dict[str, FeatureShape],
    features: object,
    per_cell: tuple[int, ...] = (),
) -> None:
    if not isinstance(features, dict) or not all(isinstance(f, torch.Tensor) for f in features.values()):
        raise ValueError(
            f"{slot}: {name}.forward gives a {type(features).__name__}, not a dict of feature maps by level name, as "
            f"in return {{{', '.join(f'{level!r}: ...' for level in declared)}}}"
        )
    rows, differs = [], list(declared) != list(features)
    for i, level in enumerate(dict.fromkeys([*declared, *features])):
        shape, feature = declared.get(level), features.get(level)
        expected = (shape.channels, -(-PROBE_SIDE // shape.stride)) if shape else None
        measured = (feature.shape[1], feature.shape[2]) if feature is not None else None
        differs = differs or expected != measured
        stride = "-" if measured is None else f"{PROBE_SIDE / measured[1]:g}"
        rows.append(
            f"  {level:8} {shape.stride if shape else '-':>8} {stride:>8} {shape.channels if shape else '-':>9} "
            f"{measured[0] if measured else '-':>9} {per_cell[i] if i < len(per_cell) else '-':>8}"
        )
    if differs:
        head = f"  {'level':8} {'stride':>8} {'measured':>8} {'channels':>9} {'measured':>9} {'anchors':>8}"
        raise ValueError(
            f"{slot}: {name}.out_shapes does not match the output of {name} for a {PROBE_SIDE}x{PROBE_SIDE} image:\n"
            + "\n".join([head, *rows])
        )
