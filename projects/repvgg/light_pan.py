"""A path aggregation network (1803.01534, section 3.1) of depthwise convolutions, as small detectors use it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import ExtraLevels, Neck
from detkit.registry import NECKS, Channels, PositiveInt
from detkit.structures import FeatureShape


@NECKS.register()
class LightPAN(Neck):
    """Fusion down the pyramid and up again; every step is a depthwise and a 1x1 convolution.

    Args:
        channels: channels of every level.
        extra_levels: number of coarser levels on top.
        kernel: odd side of the depthwise convolutions; 5 costs little more than 3, because the 1x1 convolutions do
            most of the work (2111.00902, section 3.1).
        norm: normalisation after every convolution.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 96,
        extra_levels: ExtraLevels = 1,
        kernel: PositiveInt = 5,
        norm: NormName = "bn",
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: {kernel} must be odd")

        def separable(stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
                norm_layer(norm)(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 1, bias=False),
                norm_layer(norm)(channels),
            )

        def reduce(shape: FeatureShape) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(shape.channels, channels, 1, bias=False), norm_layer(norm)(channels))

        count = len(in_shapes)
        self.lateral = nn.ModuleList(reduce(shape) for shape in in_shapes.values())
        self.down = nn.ModuleList(separable() for _ in range(count))
        self.shrink = nn.ModuleList(separable(stride=2) for _ in range(count - 1))
        self.up = nn.ModuleList(separable() for _ in range(count - 1))
        self.extra = nn.ModuleList(separable(stride=2) for _ in range(extra_levels))
        strides = [shape.stride for shape in in_shapes.values()]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(extra_levels)]
        self.out_shapes = {f"p{stride.bit_length() - 1}": FeatureShape(channels, stride) for stride in strides}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone levels -> the levels of `out_shapes`."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, features.values(), strict=True)]
        for i in reversed(range(len(levels))):
            if i + 1 < len(levels):
                levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:], mode="nearest")
            levels[i] = levels[i] + self.down[i](levels[i])
        for i, (shrink, up) in enumerate(zip(self.shrink, self.up, strict=True)):
            merged = levels[i + 1] + shrink(levels[i])
            levels[i + 1] = merged + up(merged)
        for extra in self.extra:
            levels.append(extra(levels[-1]))
        return dict(zip(self.out_shapes, levels, strict=True))
