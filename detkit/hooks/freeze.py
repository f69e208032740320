"""Freezes parts of the detector for some steps."""

from __future__ import annotations

import logging
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import nn

from detkit.hooks.base import Hook, Training
from detkit.registry import HOOKS, PositiveInt
from detkit.registry.arguments import nearest

log = logging.getLogger("detkit")


@HOOKS.register()
class Freeze(Hook):
    """Keeps parts of the detector as they are until a step, then trains them; several such hooks make a schedule.

    Frozen parameters get no update, no weight decay and no momentum, and don't count in the gradient's norm. In one
    process their gradients are not computed; in several they are computed, exchanged and dropped, since the ranks have
    agreed on what they exchange. Parameters that the backbone keeps frozen itself stay so.

    Args:
        parts: modules or parameters by the beginning of their name, as `backbone`, `backbone.layer1`, `neck`.
        until: steps for which they are frozen; null for the whole training.
        frozen_norms: batch normalisation in them uses its running statistics and leaves them as they are.
    """

    def __init__(
        self, *, parts: Annotated[list[str], MinLen(1)], until: PositiveInt | None = None, frozen_norms: bool = True
    ) -> None:
        self.parts, self.until, self.frozen_norms = parts, until, frozen_norms
        self.parameters: list[nn.Parameter] = []
        self.norms: list[nn.Module] = []

    def before_train(self, trainer: Training) -> None:
        model = trainer.detector
        for part in self.parts:
            check_part(part, model)
        trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        self.parameters = [p for name, p in model.named_parameters() if self.covers(name) and id(p) in trained]
        if len(self.parameters) == len(trained):
            raise ValueError(f"parts: {', '.join(self.parts)} is all that is trainable: leave something to train")
        self.norms = [
            m for name, m in model.named_modules()
            if self.covers(name) and isinstance(m, nn.modules.batchnorm._NormBase)
        ]  # fmt: skip
        self.apply(trainer)

    def covers(self, name: str) -> bool:
        """Whether a module or parameter is in one of the parts."""
        return any(f"{name}.".startswith(f"{part}.") for part in self.parts)

    def is_active(self, trainer: Training) -> bool:
        """Whether the coming step trains without the parts."""
        return self.until is None or trainer.step < self.until

    def before_step(self, trainer: Training) -> None:
        if trainer.step == self.until:
            self.thaw(trainer)
        self.apply(trainer)

    def apply(self, trainer: Training) -> None:
        """Freezes the parts for the coming step, if they are to be."""
        if not self.is_active(trainer):
            return
        if self.frozen_norms:
            for norm in self.norms:
                norm.eval()
        if trainer.world_size == 1:
            for parameter in self.parameters:
                parameter.requires_grad_(False)

    def after_backward(self, trainer: Training) -> None:
        if self.is_active(trainer):
            for parameter in self.parameters:
                parameter.grad = None

    def thaw(self, trainer: Training) -> None:
        """Trains the parts from here on."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        give_momentum(trainer.optimizer, self.parameters)
        log.info("step %d: training %s from here on", trainer.step, ", ".join(self.parts))


def check_part(part: str, model: nn.Module) -> None:
    """Raises ValueError with the nearest name unless a module or parameter has this name."""
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    if part not in names:
        raise ValueError(f"parts: {part!r} is no module or parameter of the detector{nearest(part, names)}")


def give_momentum(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """A zero momentum for parameters that have none yet, beside others of their group that have some.

    torch's fused SGD takes a list of momenta in which none is missing; a zero one acts as that of a first step.
    """
    ids = {id(p) for p in parameters}
    for group in optimizer.param_groups:
        if not group.get("momentum"):
            continue
        for parameter in group["params"]:
            if id(parameter) in ids and "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
