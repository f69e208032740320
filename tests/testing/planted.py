"""How a fault is planted: a sound part of a slot, and the one thing that is changed in a subclass of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.anchors.grid import OctaveAnchors
from detkit.assigners.max_iou import MaxIoUAssigner
from detkit.backbones.base import Backbone
from detkit.boxes import pairwise_iou
from detkit.coders.base import BoxCoder
from detkit.coders.delta import DeltaCoder
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.transforms.geometry import RandomHorizontalFlip
from detkit.heads.shared_tower import SharedTowerHead
from detkit.hooks.base import Hook, StepReport, Training
from detkit.loggers.base import LoggedRun, Logger
from detkit.losses.auxiliary import DistributionFocalLoss
from detkit.losses.base import JointLoss, Normalizer
from detkit.losses.box_weights import CenternessWeight
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.l1 import L1Loss
from detkit.losses.normalizers import PositiveCount
from detkit.losses.quality import CenternessLoss
from detkit.losses.sigmoid import SigmoidLoss
from detkit.necks.base import Neck
from detkit.nms.methods import HardNMS
from detkit.structures import Batch, FeatureShape, Losses, Predictions, Targets
from detkit.testing.modules import mapped
from detkit.utils.types import Tree


class Net(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=8, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.out_shapes = {"c3": FeatureShape(4, 8), "c4": FeatureShape(6, 16)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        c3 = self.first(images)
        return {"c3": c3, "c4": self.second(c3)}


class Lateral(Neck):
    def __init__(self, *, in_shapes: dict[str, FeatureShape]) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({k: nn.Conv2d(f.channels, 4, 1) for k, f in in_shapes.items()})
        self.out_shapes = {k: FeatureShape(4, f.stride) for k, f in in_shapes.items()}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: conv(features[k]) for k, conv in self.convs.items()}


class Towers(SharedTowerHead):
    def __init__(self, **derived: Any) -> None:
        super().__init__(**derived, num_convs=1, channels=8)


class FewShapes(ShapesDataset):
    def __init__(self) -> None:
        super().__init__(num_images=3, size=64)


class Swing(Hook):
    """Makes gradients larger and images darker, by a count that it keeps."""

    def __init__(self) -> None:
        self.steps = 0

    def transform_batch(self, trainer: Training, batch: Batch) -> Batch:
        return replace(batch, images=batch.images // (1 + self.steps % 2))

    def after_backward(self, trainer: Training) -> None:
        self.steps += 1
        for parameter in trainer.detector.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1 + 1 / self.steps

    def after_step(self, trainer: Training, report: StepReport) -> None:
        trainer.log({"swing/steps": self.steps})

    def state_dict(self) -> Tree:
        return {"steps": self.steps}

    def load_state_dict(self, state: Tree) -> None:
        self.steps = state["steps"]


class Keeps(Logger):
    """Writes lines into a file."""

    def start(self, run: LoggedRun) -> None:
        self.path = run.folder / "kept.txt"
        self.path.touch()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.path.write_text(self.path.read_text() + f"{step} {dict(values)}\n")


class Joint(JointLoss, SigmoidLoss):
    """Cross-entropy of anchors that overlap an object, and the difference of their deltas."""

    def divisors(self) -> Mapping[str, Normalizer]:
        return {"objects": PositiveCount()}

    def joint_losses(self, pred: Predictions, targets: list[Targets], coder: BoxCoder) -> Losses:
        classes = boxes = pred.deltas[:, :0].sum()
        for image, target in enumerate(targets):
            logits, wanted = pred.logits[image].float(), torch.zeros_like(pred.logits[image])
            if len(target.labels):
                overlap, match = pairwise_iou(pred.anchors, target.boxes).max(dim=1)
                rows = (overlap > 0.2).nonzero()[:, 0]
                wanted[rows, target.labels[match[rows]]] = 1.0
                encoded = coder.columns(coder.encode(target.boxes[match[rows]], pred.anchors[rows]))
                boxes = boxes + (pred.deltas[image, rows].float() - encoded).abs().sum()
            classes = classes + F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        objects = pred.anchors.new_tensor(float(sum(len(t.labels) for t in targets)))
        return Losses({"classes": classes, "boxes": boxes}, {"objects": objects})


SOUND: dict[str, Any] = {
    "backbones": Net,
    "necks": Lateral,
    "heads": Towers,
    "anchors": OctaveAnchors,
    "assigners": MaxIoUAssigner,
    "coders": DeltaCoder,
    "class_losses": SigmoidFocalLoss,
    "box_losses": L1Loss,
    "normalizers": PositiveCount,
    "box_weights": CenternessWeight,
    "quality_losses": CenternessLoss,
    "auxiliary_losses": DistributionFocalLoss,
    "joint_losses": Joint,
    "nms": HardNMS,
    "datasets": FewShapes,
    "transforms": RandomHorizontalFlip,
    "hooks": Swing,
    "loggers": Keeps,
}
"""Name of a registry -> a part that keeps its contract, in which faults are planted."""


@dataclass(frozen=True)
class Fault:
    """A faulty part; `seen` is a pattern of what its check says; `fails` are all the checks that must fail."""

    slot: str
    check: str
    seen: str
    part: Any
    fails: frozenset[str]


def fault(
    slot: str,
    check: str,
    seen: str,
    *,
    also: tuple[str, ...] = (),
    init: Callable[[Any], Any] | None = None,
    inputs: Callable[[Any, Tensor], Tensor] | None = None,
    outputs: Callable[[Any, Tensor], Tensor] | None = None,
    **overrides: Any,
) -> Fault:
    """A fault in a subclass of the slot's sound part.

    also: checks that can't but fail with it. init(self): runs at the end of the constructor. inputs and
    outputs(self, tensor): change every tensor that goes into, or comes out of, `forward`. Further names are
    overridden: a method by a function (self, original, *arguments), anything else by the value.
    """
    base = SOUND[slot]
    members = {k: _method(base, k, v) if callable(v) else v for k, v in overrides.items()}
    if init is not None:
        members["__init__"] = _constructor(base, init)
    if inputs or outputs:
        members["forward"] = _forward(base, inputs or _same, outputs or _same)
    name = f"{slot}_{check}"
    while name in globals():
        name += "_"
    globals()[name] = part = type(name, (base,), {**members, "__module__": __name__})  # here pickle finds it
    return Fault(slot, check, seen, part, frozenset((check, *also)))


def _same(part: Any, tensor: Tensor) -> Tensor:
    return tensor


def _absent(part: Any) -> None:
    raise AssertionError("the sound part has no such method to call")


def _method(base: Any, name: str, replacement: Any) -> Any:
    return lambda self, *arguments: replacement(self, partial(getattr(base, name, None) or _absent, self), *arguments)


def _constructor(base: Any, init: Any) -> Any:
    def __init__(self: Any, **arguments: Any) -> None:
        base.__init__(self, **arguments)
        init(self)

    return __init__


def _forward(base: Any, inputs: Any, outputs: Any) -> Any:
    def forward(self: Any, value: Any) -> Any:
        found = base.forward(self, mapped(value, lambda t: inputs(self, t)))
        return mapped(found, lambda t: outputs(self, t))

    return forward


def vanishing(tensor: Tensor) -> Tensor:
    """0 in float32; not a number in bfloat16, which can't tell 1.001 from 1."""
    return 0.0 / ((torch.ones_like(tensor) + 1e-3) - 1)
