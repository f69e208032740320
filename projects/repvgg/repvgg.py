"""RepVGG (2101.03697): three branches per block in training, one 3x3 convolution per block in prediction."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES, Channels, Layers
from detkit.structures import FeatureShape


@BACKBONES.register()
class RepVGG(Backbone):
    """Stages of RepVGG blocks after a first one of stride 2; c2, c3, ... have strides 4, 8, ...

    Args:
        widths: channels of the first block and of each stage.
        depths: blocks of each stage, the first of which has stride 2.
        out_features: levels; None: all but c2. Later stages are left out.
    """

    def __init__(
        self,
        *,
        widths: tuple[Channels, ...] = (48, 48, 96, 192, 1280),
        depths: Annotated[tuple[Layers, ...], MinLen(1)] = (2, 4, 14, 1),
        out_features: list[str] | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) + 1:
            raise ValueError(f"widths: {list(widths)} must be one more than depths {list(depths)}")
        levels = {f"c{i + 2}": FeatureShape(width, 4 * 2**i) for i, width in enumerate(widths[1:])}
        names = out_features if out_features is not None else list(levels)[1:]
        unknown = [name for name in names if name not in levels]
        if unknown or not names:
            raise ValueError(f"out_features: {unknown or names}; with these depths there are {', '.join(levels)}")
        self.out_shapes = {name: shape for name, shape in levels.items() if name in names}
        self.stem = RepVGGBlock(3, widths[0], stride=2)
        self.stages = nn.ModuleDict()
        channels = widths[0]
        for (name, shape), depth in zip(levels.items(), depths, strict=True):
            first = RepVGGBlock(channels, shape.channels, stride=2)
            rest = [RepVGGBlock(shape.channels, shape.channels) for _ in range(depth - 1)]
            self.stages[name] = nn.Sequential(first, *rest)
            channels = shape.channels
            if name == list(self.out_shapes)[-1]:
                break

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float -> the levels of `out_shapes`."""
        x, features = self.stem(images), {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.out_shapes:
                features[name] = x
        return features


class RepVGGBlock(nn.Module):
    """ReLU of the sum of a 3x3 and a 1x1 convolution and, if the shape stays, the input, each batch-normalised.

    In evaluation mode without gradients the branches are one 3x3 convolution (section 3.3), fused on first use and
    again after a weight has changed. The checkpoint contains the branches.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.norm0 = nn.BatchNorm2d(out_channels) if stride == 1 and in_channels == out_channels else None
        self._fused: tuple[Tensor, Tensor] | None = None
        self._versions: list[tuple[int, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not self.training and not torch.is_grad_enabled():
            weight, bias = self.fused()
            return F.relu_(F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), self.stride, padding=1))
        # The stride of the 1x1 is taken by slicing: with a strided 1x1 of 3 channels in channels_last, the CPU
        # library of torch 2.11 (oneDNN 3.10.2) writes past its memory in the backward pass.
        strided = x[:, :, :: self.stride, :: self.stride]
        total = self.norm3(self.conv3(x)) + self.norm1(self.conv1(strided))
        return F.relu_(total if self.norm0 is None else total + self.norm0(x))

    def fused(self) -> tuple[Tensor, Tensor]:
        """Weight (out, in, 3, 3) and bias (out,) of the fused convolution, cached until a weight changes."""
        if torch.compiler.is_compiling():
            return self.fuse()
        versions = [(t.data_ptr(), t._version) for t in (*self.parameters(), *self.buffers())]
        if self._fused is None or versions != self._versions:
            self._fused, self._versions = self.fuse(), versions
        return self._fused

    def fuse(self) -> tuple[Tensor, Tensor]:
        """The branches as one convolution (figure 4): a 1x1 is the middle of a 3x3, the input an identity 1x1."""
        weight, bias = scaled(self.conv3.weight, self.norm3)
        small, small_bias = scaled(self.conv1.weight, self.norm1)
        weight, bias = weight + F.pad(small, (1, 1, 1, 1)), bias + small_bias
        if self.norm0 is not None:
            identity = torch.eye(len(weight), device=weight.device, dtype=weight.dtype)
            small, small_bias = scaled(identity[:, :, None, None], self.norm0)
            weight, bias = weight + F.pad(small, (1, 1, 1, 1)), bias + small_bias
        return weight.contiguous(memory_format=torch.channels_last), bias


def scaled(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A convolution and the batch norm after it -> weight and bias of one convolution (equation 3)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
