"""A hook that kills its process, and a backbone that trains in no time."""

from __future__ import annotations

import os
import signal

from torch import Tensor, nn

from detkit.backbones.base import Backbone
from detkit.hooks.base import Hook, StepReport, Training
from detkit.registry import BACKBONES, HOOKS
from detkit.structures import FeatureShape


@BACKBONES.register()
class Quick(Backbone):
    """Two convolutions with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.out_shapes = {"c3": FeatureShape(8, 8), "c4": FeatureShape(8, 16)}

    def layer_names(self) -> list[list[str]]:
        return [["layer1"], ["layer2"]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        c3 = self.layer1(images)
        return {"c3": c3, "c4": self.layer2(c3)}


@HOOKS.register()
class Killer(Hook):
    """Kills its process, without a chance to say anything, after the step KILL_AT."""

    changes_training = False

    def after_step(self, trainer: Training, report: StepReport) -> None:
        if os.environ.get("KILL_AT") == str(report.step):
            os.kill(os.getpid(), signal.SIGKILL)
