"""Normalisation layers by name, the same for backbones, necks and heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

NormName = Literal["frozen_bn", "bn", "sync_bn", "gn"]
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.modules.normalization.RMSNorm)
"""Modules whose parameters are those of a normalisation."""


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine terms never change.

    Buffers have the names of `nn.BatchNorm2d`, so its weights load here. Scale and shift are applied to the
    feature map in one pass (addcmul), without a temporary of its size; torch's batch norm in
    evaluation mode takes up to four times as long on a CPU (benchmarks in EXPERIMENTS.md). overwrite: write
    into the input if no gradient is needed; set it only if nothing else reads the input.
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


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes; in one process it is nn.BatchNorm2d.

    On a GPU it uses torch's implementation; on a CPU it adds up sums and squares by a differentiable collective.
    It is not a subclass of nn.SyncBatchNorm, because DistributedDataParallel refuses those on a CPU.
    """

    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, x: Tensor) -> Tensor:
        single = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if single or not self.training:
            return super().forward(x)
        if x.is_cuda:
            return nn.SyncBatchNorm.forward(self, x)  # type: ignore[arg-type]
        from torch.distributed.nn.functional import all_reduce

        count = x.numel() / x.shape[1]
        sums = [x.double().sum((0, 2, 3)), x.double().square().sum((0, 2, 3)), x.new_tensor([count]).double()]
        total: Tensor = all_reduce(torch.cat(sums))  # type: ignore[no-untyped-call]
        number = total[-1]
        mean, square = (total[:-1] / number).chunk(2)
        variance = square - mean.square()
        self._update_statistics(mean.detach(), (variance * number / (number - 1)).detach())
        scale = (variance + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        exact = torch.promote_types(x.dtype, self.weight.dtype)
        scale, shift = (v.to(exact).view(1, -1, 1, 1) for v in (scale, shift))
        return torch.addcmul(shift, x.to(exact), scale).to(x.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (1803.08494) with 32 groups, or fewer where they would not divide the channels.

    A group has at least two channels: over a map of one cell, a group of one channel would be constant.
    """
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % (2 * g) == 0 or g == 1)
    return nn.GroupNorm(groups, channels)


def norm_layer(name: NormName, eps: float = 1e-5, momentum: float = 0.1) -> Callable[[int], nn.Module]:
    """`frozen_bn`, `bn`, `sync_bn` or `gn` -> a function that makes the layer for a number of channels.

    eps, momentum: of a batch norm.
    """
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen_bn": partial(FrozenBatchNorm2d, eps=eps),
        "bn": partial(nn.BatchNorm2d, eps=eps, momentum=momentum),
        "sync_bn": partial(SyncBatchNorm2d, eps=eps, momentum=momentum),
        "gn": group_norm,
    }
    return layers[name]
