"""SSD's extra feature layers (1512.02325, section 2.1 and figure 2) and SSDlite's (1801.04381, section 6.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.depthwise import depthwise, init_mobile, init_xavier, pointwise
from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import Neck
from detkit.registry import NECKS
from detkit.registry.arguments import MOST_CHANNELS, within
from detkit.structures import FeatureShape

KERNEL = 3


@NECKS.register()
class SSDExtraLevels(Neck):
    """The backbone's levels as they are, then one smaller level after the other out of the last.

    channels: of each extra level; before its 3x3 convolution the map goes through half as many. strides: of
    each 3x3 convolution. 2 halves the map (rounded up); 1 means no padding, so the map loses two cells a
    side, as SSD300's last two levels do (5 -> 3 -> 1); the distance of the cells, which is what the level
    declares, stays. A map smaller than the kernel is padded to its size. lite: SSDlite's
    depthwise-separable convolutions with ReLU6. norm: after every convolution; none keeps their biases.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: list[int] = [512, 256, 256, 256],  # noqa: B006  (only read)
        strides: list[int] = [2, 2, 2, 2],  # noqa: B006  (only read)
        lite: bool = False,
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise ValueError(f"channels={list(channels)}, strides={list(strides)}: want one each a level")
        if channels and (min(channels) < 2 or not set(strides) <= {1, 2}):
            raise ValueError(f"channels={list(channels)}, strides={list(strides)}: want at least 2, and 1 or 2")
        within("channels", list(channels), 2, MOST_CHANNELS)
        self.strides = tuple(strides)
        self.out_shapes = dict(in_shapes)
        self.extra = nn.ModuleList()
        last = list(in_shapes.values())[-1]
        for i, (width, stride) in enumerate(zip(channels, strides, strict=True), start=1):
            make = _lite_level if lite else _level
            self.extra.append(make(last.channels, width, stride, norm))
            last = FeatureShape(width, last.stride * stride)
            self.out_shapes[f"extra{i}"] = last
        (init_mobile if lite else init_xavier)(self)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone levels -> those and `extra1`, `extra2`, ..., finest first."""
        levels = list(features.values())
        for stride, layer in zip(self.strides, self.extra, strict=True):
            x = levels[-1]
            short = [max(0, KERNEL - side) if stride == 1 else 0 for side in (x.shape[-1], x.shape[-2])]
            if any(short):
                x = F.pad(x, (0, short[0], 0, short[1]))
            levels.append(layer(x))
        return dict(zip(self.out_shapes, levels, strict=True))


def _level(in_channels: int, channels: int, stride: int, norm: NormName | None) -> nn.Module:
    layers: list[nn.Module] = []
    hidden = channels // 2
    for conv in (
        nn.Conv2d(in_channels, hidden, 1, bias=norm is None),
        nn.Conv2d(hidden, channels, KERNEL, stride, padding=stride - 1, bias=norm is None),
    ):
        layers += [conv, *([] if norm is None else [norm_layer(norm)(conv.out_channels)]), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _lite_level(in_channels: int, channels: int, stride: int, norm: NormName | None) -> nn.Module:
    hidden = channels // 2
    return nn.Sequential(
        pointwise(in_channels, hidden, norm),
        depthwise(hidden, stride, stride - 1, norm),
        pointwise(hidden, channels, norm),
    )
