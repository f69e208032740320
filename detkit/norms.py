"""Normalisation layers by one word, the same for backbones, necks and heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

NormName = Literal["frozen_bn", "bn", "sync_bn", "gn"]


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine terms never change.

    Buffers have the names of `nn.BatchNorm2d`, so its weights load here. Scale and shift go over the
    feature map in one pass (addcmul), without a temporary of its size; torch's own batch norm in
    evaluation mode takes up to four times as long on a CPU (benchmarks in EXPERIMENTS.md). overwrite: write
    into the input where no gradient is wanted; for owners who know that nobody else needs it.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.overwrite = False
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_features, H, W) -> the same shape."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        shape = (1, -1, 1, 1)
        scale, shift = scale.to(x.dtype).view(shape), shift.to(x.dtype).view(shape)
        if self.overwrite and not (torch.is_grad_enabled() and x.requires_grad):
            return torch.addcmul(shift, x, scale, out=x)
        return torch.addcmul(shift, x, scale)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (1803.08494) with 32 groups, or fewer where they would not divide the channels.

    A group has at least two channels: over a map of one cell, a group of one has nothing to normalise.
    """
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % (2 * g) == 0 or g == 1)
    return nn.GroupNorm(groups, channels)


def norm_layer(name: NormName) -> Callable[[int], nn.Module]:
    """`frozen_bn`, `bn`, `sync_bn` or `gn` -> a function from a number of channels to the layer."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen_bn": FrozenBatchNorm2d,
        "bn": nn.BatchNorm2d,
        "sync_bn": nn.SyncBatchNorm,
        "gn": group_norm,
    }
    return layers[name]
