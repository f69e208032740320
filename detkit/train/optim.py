"""Optimizers as parts, and which parameter gets which learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detkit.layers.norms import NORMS
from detkit.registry import OPTIMIZERS, FractionAboveZero, FractionBelowOne, NonNegative
from detkit.utils.types import Tree


class OptimizerFactory:
    """Makes a torch optimizer for a model.

    Every parameter group carries `initial_lr`, which the schedule's factor multiplies.
    """

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all trainable parameters."""
        raise NotImplementedError


@dataclass(frozen=True)
class ParameterGroups:
    """Learning rate and weight decay by kind of parameter.

    decays: weight decay of `weight`, `norm` and `bias`; None for that of `weight`. layer_decay: factor on the rate for
    each layer of the backbone (`Backbone.layer_names`), from its last one towards the image; 1 asks for no layers.
    """

    lr: float
    decays: dict[str, float | None]
    bias_lr_factor: float
    backbone_lr_factor: float
    layer_decay: float = 1.0

    def of(self, model: nn.Module) -> list[Tree]:
        """Every trainable parameter once, in groups of equal learning rate and weight decay, for a torch optimizer."""
        groups: dict[tuple[float, float | None], Tree] = {}
        depths = {} if self.layer_decay == 1 else layer_depths(model)
        for name, kind, parameter in trainable(model):
            rate = self.lr * (self.bias_lr_factor if kind == "bias" else 1.0)
            rate *= self.backbone_lr_factor if name.startswith("backbone.") else 1.0
            rate *= self.layer_decay ** depths.get(name, 0)
            decay = self.decays["weight"] if self.decays[kind] is None else self.decays[kind]
            new = {"params": [], "lr": rate, "initial_lr": rate, "weight_decay": decay}
            groups.setdefault((rate, decay), new)["params"].append(parameter)
        if not groups:
            raise ValueError("the model has no trainable parameter: is everything frozen?")
        return list(groups.values())


@OPTIMIZERS.register()
class SGD(OptimizerFactory):
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate, see also `train.lr_scaling`.
        momentum: factor on the running sum of gradients.
        weight_decay: weight decay of convolutions and linear layers.
        nesterov: look ahead along the momentum.
        norm_weight_decay: weight decay of normalisation layers; null for that of `weight_decay`.
        bias_weight_decay: weight decay of other biases; null for that of `weight_decay`.
        bias_lr_factor: factor on lr for biases.
        backbone_lr_factor: factor on lr for everything under `backbone`.
        layer_decay: factor on lr for each layer of the backbone, counted from its last towards the image: the last gets
            one such factor, the one before it two; 1 for the same rate in all (2106.08254).
    """

    def __init__(
        self,
        *,
        lr: NonNegative,
        momentum: FractionBelowOne = 0.9,
        weight_decay: NonNegative = 1e-4,
        nesterov: bool = False,
        norm_weight_decay: NonNegative | None = 0.0,
        bias_weight_decay: NonNegative | None = None,
        bias_lr_factor: NonNegative = 1.0,
        backbone_lr_factor: NonNegative = 1.0,
        layer_decay: FractionAboveZero = 1.0,
    ) -> None:
        if nesterov and momentum == 0:
            raise ValueError("nesterov: true needs a momentum above 0")
        self.momentum, self.nesterov = momentum, nesterov
        decays = {"weight": weight_decay, "norm": norm_weight_decay, "bias": bias_weight_decay}
        self.groups = ParameterGroups(lr, decays, bias_lr_factor, backbone_lr_factor, layer_decay)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.groups.of(model), momentum=self.momentum, nesterov=self.nesterov, fused=True)


@OPTIMIZERS.register()
class AdamW(OptimizerFactory):
    """Adam with decoupled weight decay (1711.05101).

    Args:
        lr: learning rate, see also `train.lr_scaling`.
        betas: decays of the running means of the gradient and of its square.
        eps: added to the root of the mean square.
        weight_decay: weight decay of convolutions and linear layers.
        norm_weight_decay: weight decay of normalisation layers; null for that of `weight_decay`.
        bias_weight_decay: weight decay of other biases; null for that of `weight_decay`.
        bias_lr_factor: factor on lr for biases.
        backbone_lr_factor: factor on lr for everything under `backbone`.
        layer_decay: factor on lr for each layer of the backbone, counted from its last towards the image: the last gets
            one such factor, the one before it two; 1 for the same rate in all (2106.08254).
    """

    def __init__(
        self,
        *,
        lr: NonNegative,
        betas: tuple[FractionBelowOne, FractionBelowOne] = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.05,
        norm_weight_decay: NonNegative | None = 0.0,
        bias_weight_decay: NonNegative | None = 0.0,
        bias_lr_factor: NonNegative = 1.0,
        backbone_lr_factor: NonNegative = 1.0,
        layer_decay: FractionAboveZero = 1.0,
    ) -> None:
        self.betas, self.eps = (betas[0], betas[1]), eps
        decays = {"weight": weight_decay, "norm": norm_weight_decay, "bias": bias_weight_decay}
        self.groups = ParameterGroups(lr, decays, bias_lr_factor, backbone_lr_factor, layer_decay)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups.of(model), betas=self.betas, eps=self.eps, fused=True)


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Full name of each parameter of the backbone -> its layer, counted from 1 for the last one towards the image.

    Raises ValueError if the backbone names no layers, or leaves a parameter out.
    """
    backbone = model.get_submodule("backbone")
    layers: Sequence[Sequence[str]] = getattr(backbone, "layer_names", list)()
    depths = {}
    for name, _ in backbone.named_parameters():
        places = [i for i, names in enumerate(layers) if any(f"{name}.".startswith(f"{part}.") for part in names)]
        if not places:
            what = f"leaves out {name}" if layers else "is not implemented"
            raise ValueError(
                f"optimizer.layer_decay needs the layers of the backbone in their order, but "
                f"{type(backbone).__name__}.layer_names {what}: set optimizer.layer_decay=1, or complete it"
            )
        depths[f"backbone.{name}"] = len(layers) - places[0]
    return depths


def trainable(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Name, kind (`weight`, `norm` or `bias`) and tensor of each trainable parameter, once."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            prefix, _, short = name.rpartition(".")
            norm = isinstance(model.get_submodule(prefix), NORMS)
            yield name, "norm" if norm else "bias" if short == "bias" else "weight", parameter
