"""SSD's extra feature layers (1512.02325, section 2.1 and figure 2) and SSDlite's (1801.04381, section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.convs import depthwise, init_convs, mobile_init, pointwise, with_norm
from detkit.layers.norms import NormName
from detkit.necks.base import Neck
from detkit.registry import NECKS
from detkit.registry.bounds import MOST_CHANNELS
from detkit.structures import FeatureShape

KERNEL = 3


@NECKS.register()
class SSDExtraLevels(Neck):
    """The backbone's levels unchanged, and smaller extra levels, each computed from the one before.

    Source: 1512.02325, section 2.1; SSDlite: 1801.04381, section 6.2.

    Args:
        channels: channels of each extra level; before its 3x3 convolution a 1x1 convolution halves them.
        strides: stride of each 3x3 convolution. 2 halves the map (rounded up); 1 means no padding, so the map loses
            two cells per side, as SSD300's last two levels do (5 -> 3 -> 1), while the level's declared stride stays. A
            map smaller than the kernel is padded to its size.
        lite: use SSDlite's depthwise-separable convolutions with ReLU6.
        norm: normalisation after every convolution; null: none, and the convolutions have biases.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Sequence[Annotated[int, Interval(ge=2, le=MOST_CHANNELS)]] = (512, 256, 256, 256),
        strides: Sequence[Annotated[int, Interval(ge=1, le=2)]] = (2, 2, 2, 2),
        lite: bool = False,
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise ValueError(f"channels: {list(channels)} must have as many entries as strides: {list(strides)}")
        self.strides = tuple(strides)
        self.out_shapes = dict(in_shapes)
        self.extra = nn.ModuleList()
        last = list(in_shapes.values())[-1]
        for i, (width, stride) in enumerate(zip(channels, strides, strict=True), start=1):
            self.extra.append((_lite_level if lite else _level)(last.channels, width, stride, norm))
            last = FeatureShape(width, last.stride * stride)
            self.out_shapes[f"extra{i}"] = last
        init_convs(self, mobile_init if lite else nn.init.xavier_uniform_)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone levels -> these and `extra1`, `extra2`, ..., finest first."""
        levels = list(features.values())
        for stride, layer in zip(self.strides, self.extra, strict=True):
            x = levels[-1]
            right, down = (max(0, KERNEL - side) if stride == 1 else 0 for side in (x.shape[-1], x.shape[-2]))
            if right or down:
                x = F.pad(x, (0, right, 0, down))
            levels.append(layer(x))
        return dict(zip(self.out_shapes, levels, strict=True))


@NECKS.register()
class NoNeck(Neck):
    """Passes the backbone's levels on unchanged."""

    def __init__(self, *, in_shapes: dict[str, FeatureShape]) -> None:
        super().__init__()
        self.out_shapes = dict(in_shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


def _level(in_channels: int, channels: int, stride: int, norm: NormName | None) -> nn.Module:
    hidden = channels // 2
    squeeze = nn.Conv2d(in_channels, hidden, 1, bias=norm is None)
    conv = nn.Conv2d(hidden, channels, KERNEL, stride, padding=stride - 1, bias=norm is None)
    return nn.Sequential(
        *with_norm(squeeze, norm, nn.ReLU(inplace=True)), *with_norm(conv, norm, nn.ReLU(inplace=True))
    )


def _lite_level(in_channels: int, channels: int, stride: int, norm: NormName | None) -> nn.Module:
    hidden = channels // 2
    return nn.Sequential(
        pointwise(in_channels, hidden, norm),
        depthwise(hidden, stride, stride - 1, norm),
        pointwise(hidden, channels, norm),
    )
