"""Cross stage partial layers (CSPNet, 1911.11929) with the blocks of YOLOX (2107.08430) and RTMDet (2212.07784)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

NormFactory = Callable[[int], nn.Module]
"""A function that makes the norm for a number of channels."""
BlockName = Literal["darknet", "cspnext"]


class ConvBlock(nn.Sequential):
    """Convolution without bias, norm and SiLU; the padding keeps the size at stride 1."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, norm: NormFactory, stride: int = 1, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, norm(out_channels), nn.SiLU(inplace=True))


class Bottleneck(nn.Module):
    """Two convolutions, with the input added if `add`.

    `darknet`: 1x1 and 3x3 (YOLOX, 2107.08430). `cspnext`: 3x3, and a 5x5 that is a depthwise and a 1x1 convolution
    (RTMDet, 2212.07784, section 3.2).
    """

    def __init__(self, channels: int, block: BlockName, add: bool, norm: NormFactory) -> None:
        super().__init__()
        if block == "darknet":
            convs = [ConvBlock(channels, channels, 1, norm), ConvBlock(channels, channels, 3, norm)]
        else:
            convs = [
                ConvBlock(channels, channels, 3, norm),
                ConvBlock(channels, channels, 5, norm, groups=channels),
                ConvBlock(channels, channels, 1, norm),
            ]
        self.convs, self.add = nn.Sequential(*convs), add

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        return x + out if self.add else out


class ChannelAttention(nn.Module):
    """Multiplies each channel by a hard sigmoid of a linear function of all channels' means (2212.07784)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        factor: Tensor = nn.functional.hardsigmoid(self.project(x.mean(dim=(2, 3), keepdim=True)))
        return x * factor


class CSPLayer(nn.Module):
    """One half of the channels goes through `count` bottlenecks, the other past them, and both are joined."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        count: int,
        norm: NormFactory,
        *,
        block: BlockName = "darknet",
        add: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.main, self.short = ConvBlock(in_channels, half, 1, norm), ConvBlock(in_channels, half, 1, norm)
        self.blocks = nn.Sequential(*(Bottleneck(half, block, add, norm) for _ in range(count)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()
        self.join = ConvBlock(2 * half, out_channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((self.blocks(self.main(x)), self.short(x)), dim=1)
        out: Tensor = self.join(self.attention(both))
        return out


class PyramidPooling(nn.Module):
    """Greatest values of windows of several sizes around each cell, beside the cell's own (1406.4729)."""

    def __init__(self, channels: int, norm: NormFactory, sides: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = ConvBlock(channels, half, 1, norm)
        self.pools = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in sides)
        self.join = ConvBlock(half * (1 + len(sides)), channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        out: Tensor = self.join(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))
        return out
