"""Optimizers as parts, and which parameter gets which learning rate and weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from detkit.registry import OPTIMIZERS

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.modules.normalization.RMSNorm)


class OptimizerFactory:
    """Makes a torch optimizer for a model.

    Every parameter group carries `initial_lr`, which the schedule's factor multiplies.
    """

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that want a gradient."""
        raise NotImplementedError


@OPTIMIZERS.register()
class SGD(OptimizerFactory):
    """Stochastic gradient descent with momentum.

    weight_decay: of convolutions and linear layers. norm_weight_decay, bias_weight_decay: of
    normalisation layers and of other biases, null for the same as weight_decay. bias_lr_factor,
    backbone_lr_factor: multiply lr for biases and for everything under `backbone`.
    """

    def __init__(
        self,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        nesterov: bool = False,
        norm_weight_decay: float | None = 0.0,
        bias_weight_decay: float | None = None,
        bias_lr_factor: float = 1.0,
        backbone_lr_factor: float = 1.0,
    ) -> None:
        check_rates(
            lr=lr, weight_decay=weight_decay, norm_weight_decay=norm_weight_decay, bias_weight_decay=bias_weight_decay,
            bias_lr_factor=bias_lr_factor, backbone_lr_factor=backbone_lr_factor,
        )  # fmt: skip
        if nesterov and momentum == 0:
            raise ValueError("nesterov: true needs a momentum above 0")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: {momentum} is not in [0, 1)")
        self.momentum, self.nesterov = momentum, nesterov
        self.groups: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "norm_weight_decay": norm_weight_decay,
            "bias_weight_decay": bias_weight_decay,
            "bias_lr_factor": bias_lr_factor,
            "backbone_lr_factor": backbone_lr_factor,
        }

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerFactory.build`."""
        groups = parameter_groups(model, **self.groups)
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov, fused=True)


@OPTIMIZERS.register()
class AdamW(OptimizerFactory):
    """Adam with decoupled weight decay (1711.05101). Arguments as for `SGD`."""

    def __init__(
        self,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        norm_weight_decay: float | None = 0.0,
        bias_weight_decay: float | None = 0.0,
        bias_lr_factor: float = 1.0,
        backbone_lr_factor: float = 1.0,
    ) -> None:
        check_rates(
            lr=lr, eps=eps, weight_decay=weight_decay, norm_weight_decay=norm_weight_decay,
            bias_weight_decay=bias_weight_decay, bias_lr_factor=bias_lr_factor, backbone_lr_factor=backbone_lr_factor,
        )  # fmt: skip
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"betas: {tuple(betas)} are not in [0, 1)")
        self.betas, self.eps = (betas[0], betas[1]), eps
        self.groups: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "norm_weight_decay": norm_weight_decay,
            "bias_weight_decay": bias_weight_decay,
            "bias_lr_factor": bias_lr_factor,
            "backbone_lr_factor": backbone_lr_factor,
        }

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerFactory.build`."""
        groups = parameter_groups(model, **self.groups)
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=True)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    norm_weight_decay: float | None,
    bias_weight_decay: float | None,
    bias_lr_factor: float,
    backbone_lr_factor: float,
) -> list[dict[str, Any]]:
    """Every trainable parameter once, in groups of equal learning rate and weight decay."""
    decays = {"weight": weight_decay, "norm": norm_weight_decay, "bias": bias_weight_decay}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, kind, parameter in trainable(model):
        rate = lr * (bias_lr_factor if kind == "bias" else 1.0)
        rate *= backbone_lr_factor if name.startswith("backbone.") else 1.0
        decay = decays[kind]
        decay = weight_decay if decay is None else decay
        new = {"params": [], "lr": rate, "initial_lr": rate, "weight_decay": decay}
        groups.setdefault((rate, decay), new)["params"].append(parameter)
    if not groups:
        raise ValueError("the model has no trainable parameter: is everything frozen?")
    return list(groups.values())


def trainable(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Name, kind (`weight`, `norm` or `bias`) and tensor of each parameter that wants a gradient, once."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for short, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            kind = "norm" if isinstance(module, NORMS) else "bias" if short == "bias" else "weight"
            yield (f"{prefix}.{short}" if prefix else short), kind, parameter


def check_rates(**values: float | None) -> None:
    """Raises ValueError for a negative or unbounded value."""
    for name, value in values.items():
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}: {value} is negative or not finite")
