"""Records learning rates."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from detkit.hooks.base import Hook, StepReport, Training
from detkit.registry import HOOKS, PositiveInt


@HOOKS.register()
class LearningRateMonitor(Hook):
    """Records the learning rate of each part of the detector, as `lr/backbone`.

    A part whose parameters have several rates gets a name for each: `lr/backbone` is that of most parameters, the
    others are `lr/backbone/2` and so on.

    Args:
        every: steps between two records.
    """

    changes_training = False

    def __init__(self, *, every: PositiveInt = 20) -> None:
        self.every = every

    def after_step(self, trainer: Training, report: StepReport) -> None:
        if report.step % self.every == 0 or report.step == trainer.iterations:
            trainer.log(learning_rates(trainer.detector, trainer.optimizer))


def learning_rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """`lr/<room>` -> rate of the parameters under that room of the model."""
    room_of = {id(parameter): name.partition(".")[0] for name, parameter in model.named_parameters()}
    counts: dict[str, Counter[float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            counts.setdefault(room_of[id(parameter)], Counter())[group["lr"]] += parameter.numel()
    rates: dict[str, float] = {}
    for room, of_room in counts.items():
        ordered = sorted(of_room, key=lambda rate: (-of_room[rate], rate))
        rates |= {f"lr/{room}" if i == 1 else f"lr/{room}/{i}": rate for i, rate in enumerate(ordered, 1)}
    return rates
