"""Finds weights of a checkpoint that mean something else under another config, although names and shapes fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.coders.base import BoxCoder
from detkit.config import Config
from detkit.detectors.build import levels_of
from detkit.detectors.dense import DenseDetector
from detkit.losses.base import ClassificationLoss
from detkit.registry import ANCHORS, BACKBONES, CLASS_LOSSES, CODERS, NECKS, Registry
from detkit.utils.types import Tree, Value

IMAGE = (256, 384)
SLACK = 0.01
"""Pixels that two anchors may be apart and still be the same."""
NO_MEANING = {"weights", "freeze_at", "norm", "type"}
"""Arguments of a part that say nothing about what its weights compute, or give it other tensors."""


@dataclass(frozen=True)
class Differences:
    """Reasons why the last layers can't be loaded; empty where they can.

    anchors: for a head that serves all levels. levels: by index of the level, for a head with layers for each.
    coder: for the box branch. link: for the class branch. notes: sentences about other differences.
    """

    anchors: str = ""
    levels: Mapping[int, str] = field(default_factory=dict)
    coder: str = ""
    link: str = ""
    notes: tuple[str, ...] = ()

    def of_boxes(self, level: int | None) -> str:
        """The reason for the layer that outputs deltas; level: None if it serves all."""
        return self._of_anchors(level) or self.coder

    def of_classes(self, level: int | None) -> str:
        """The reason for the layer that outputs logits."""
        return self._of_anchors(level) or self.link

    def _of_anchors(self, level: int | None) -> str:
        return self.anchors if level is None else self.levels.get(level, "")


def differences(saved: Mapping[str, Value], config: Config, detector: DenseDetector) -> Differences:
    """Compares the parts of a checkpoint's config with those of a detector that `config` built."""
    strides = tuple(shape.stride for shape in levels_of("neck", detector.neck).values())
    try:
        with torch.random.fork_rng(devices=[]):  # building the other backbone draws its first weights
            anchors, levels = _anchors(saved, strides, detector)
    except (ValueError, KeyError, ImportError) as error:
        anchors = f"anchors that can't be compared ({error})"
        levels = dict.fromkeys(range(len(strides)), anchors)
    coder = _part_difference("coder", CODERS, saved["coder"], config.coder, _coded)
    link = _part_difference(
        "class link", CLASS_LOSSES, saved["losses"]["classification"], config.losses.classification, _scored
    )
    return Differences(anchors, levels, coder, link, tuple(_notes(saved, config.to_dict())))


def _anchors(
    saved: Mapping[str, Value], strides: tuple[int, ...], detector: DenseDetector
) -> tuple[str, dict[int, str]]:
    neck = NECKS.build(saved["neck"], in_shapes=levels_of("backbone", BACKBONES.build(saved["backbone"])))
    saved_strides = tuple(shape.stride for shape in levels_of("neck", neck).values())
    old = _generate(ANCHORS.build(saved["anchors"], strides=saved_strides), saved_strides)
    new = _generate(detector.anchors, strides)
    levels = {}
    for i, stride in enumerate(strides):
        if i >= len(saved_strides) or saved_strides[i] != stride:
            there = f"stride {saved_strides[i]}" if i < len(saved_strides) else "no such level"
            levels[i] = f"other anchors: level {i} has stride {stride} here, {there} there"
        elif reason := _anchor_difference(old[i], new[i], stride):
            levels[i] = reason
    shared = [stride for stride in strides if stride in saved_strides]
    reasons = [_anchor_difference(old[saved_strides.index(s)], new[strides.index(s)], s) for s in shared]
    none = "" if shared else f"other anchors: strides {list(saved_strides)} there, {list(strides)} here"
    return next(filter(None, reasons), none), levels


def _generate(generator: AnchorGenerator, strides: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """(anchors per cell, boxes (N, 4)) of each level of one image."""
    shapes = [(-(-IMAGE[0] // s), -(-IMAGE[1] // s)) for s in strides]
    return list(zip(generator.per_cell, generator(shapes, IMAGE, torch.device("cpu")), strict=True))


def _anchor_difference(old: tuple[int, Tensor], new: tuple[int, Tensor], stride: int) -> str:
    where = f"at stride {stride}"
    if old[0] != new[0]:
        return f"other anchors: {old[0]} a cell there, {new[0]} here, {where}"
    rows = ((old[1] - new[1]).abs() > SLACK).any(dim=1).nonzero()
    if not len(rows):
        return ""
    row = int(rows[0])
    there, here = ([round(v, 1) for v in (boxes[row, 2:] - boxes[row, :2]).tolist()] for boxes in (old[1], new[1]))
    if there == here:
        return f"other anchors: of the same size elsewhere in their cells, {where}"
    return f"other anchors: {there} px there, {here} here, {where}"


def _part_difference(
    what: str, registry: Registry, saved: Tree, current: Tree, compute: Callable[[Any], Tensor]
) -> str:
    """A reason unless both parts compute the same."""
    try:
        old, new = compute(registry.build(saved)), compute(registry.build(current))
    except ValueError as error:
        return f"another {what} ({error})"
    same = old.shape == new.shape and torch.allclose(old, new, atol=1e-5)
    return "" if same else f"another {what}: {_describe(saved)} there, {_describe(current)} here"


def _coded(coder: BoxCoder) -> Tensor:
    anchors = torch.tensor([[0.0, 0.0, 32.0, 32.0], [10.0, 20.0, 60.0, 40.0]])
    decoded = coder.decode(torch.tensor([[0.1, -0.2, 0.3, -0.4], [0.5, 0.2, -0.1, 0.1]]), anchors)
    encoded: Tensor = coder.encode(anchors + torch.tensor([1.0, -2.0, 5.0, 4.0]), anchors)
    return torch.cat((encoded, decoded))


def _scored(loss: ClassificationLoss) -> Tensor:
    columns = loss.num_columns(3)
    scores: Tensor = loss.scores(torch.linspace(-3, 3, 4 * columns).view(4, columns).sin() * 3)
    return torch.cat((torch.full((4, 1), float(columns)), scores), dim=1)


def _describe(node: Mapping[str, Value]) -> str:
    weights = node.get("weights", "")
    return str(node["type"]) + ("" if isinstance(weights, str) else f" with weights {list(weights)}")


def _notes(saved: Mapping[str, Value], current: Mapping[str, Value]) -> list[str]:
    """Sentences about settings of input and parts that differ without a difference in any tensor's shape."""
    notes = []
    for part in ("pixels", "backbone", "neck", "head"):
        old, new = saved.get(part) or {}, current.get(part) or {}
        if part != "pixels" and old.get("type") != new.get("type"):
            continue
        for key in [k for k in new if k in old and k not in NO_MEANING and old[k] != new[k]]:
            notes.append(f"{part}.{key}: the weights were trained with {old[key]}, here it is {new[key]}")
    return notes
