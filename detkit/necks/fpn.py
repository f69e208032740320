"""Feature pyramid network (1612.03144) with RetinaNet's extra levels (1708.02002, footnote 2), and path aggregation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.convs import init_convs, with_norm
from detkit.layers.norms import NormName
from detkit.necks.base import ExtraLevels, Neck, extra_strides, pyramid_level
from detkit.registry import NECKS, Channels
from detkit.structures import FeatureShape

ExtraFrom = Literal["c5", "p5"]
init_uniform = partial(nn.init.kaiming_uniform_, a=1)


class ExtraConvs(nn.ModuleList):
    """Stride-2 convolutions that add levels on top; each takes the level before, after a ReLU.

    conv: makes one from its input channels, kernel and stride. channels: of the last backbone level and of the pyramid.
    relu: whether there is a ReLU between two of them.
    """

    def __init__(
        self,
        conv: Callable[[int, int, int], nn.Module],
        extra_from: ExtraFrom,
        channels: tuple[int, int],
        count: int,
        relu: bool = True,
    ) -> None:
        first = channels[0] if extra_from == "c5" else channels[1]
        super().__init__(conv(first if i == 0 else channels[1], 3, 2) for i in range(count))
        self.extra_from, self.relu = extra_from, relu

    def forward(self, c5: Tensor, levels: list[Tensor]) -> list[Tensor]:
        """The last backbone level and the pyramid's levels -> these and the extra levels."""
        x = c5 if self.extra_from == "c5" else levels[-1]
        for i, layer in enumerate(self):
            x = layer(F.relu(x) if i and self.relu else x)
            levels = [*levels, x]
        return levels


@NECKS.register()
class FPN(Neck):
    """Top-down pyramid over all backbone levels, with stride-2 convolutions for extra levels on top.

    Source: 1612.03144, section 3; extra levels: 1708.02002, footnote 2.

    Args:
        channels: channels of every level.
        extra_levels: number of extra levels; each is computed from the level before.
        extra_from: input of the first extra level, the last backbone level (`c5`, as in the RetinaNet paper and
            Detectron2) or the last pyramid level (`p5`, as in torchvision's v1 model).
        extra_relu: whether there is a ReLU between two extra levels; ATSS, GFL and others have none.
        norm: normalisation after every convolution; null: none, and the convolutions have biases.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 256,
        extra_levels: ExtraLevels = 2,
        extra_from: ExtraFrom = "c5",
        extra_relu: bool = True,
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        names, last = list(in_shapes), list(in_shapes.values())[-1]

        def conv(in_channels: int, kernel: int, stride: int = 1) -> nn.Module:
            layer = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=norm is None)
            return layer if norm is None else nn.Sequential(*with_norm(layer, norm))

        self.lateral = nn.ModuleDict({n: conv(shape.channels, 1) for n, shape in in_shapes.items()})
        self.output = nn.ModuleDict({n: conv(channels, 3) for n in names})
        self.extra = ExtraConvs(conv, extra_from, (last.channels, channels), extra_levels, extra_relu)
        init_convs(self, init_uniform)
        self.out_shapes = {f"p{n.lstrip('c')}": FeatureShape(channels, s.stride) for n, s in in_shapes.items()}
        self.out_shapes |= dict(pyramid_level(channels, s) for s in extra_strides(last.stride, extra_levels))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        names = list(self.lateral)
        top: Tensor | None = None
        pyramid: list[Tensor] = []
        for name in reversed(names):
            lateral = self.lateral[name](features[name])
            # The coarse map is scaled to the size of the finer one, which is not always twice its own.
            top = lateral if top is None else lateral + F.interpolate(top, size=lateral.shape[-2:], mode="nearest")
            pyramid.insert(0, self.output[name](top))
        return dict(zip(self.out_shapes, self.extra(features[names[-1]], pyramid), strict=True))


@NECKS.register()
class PAFPN(Neck):
    """The pyramid of `FPN`, then a path from its finest level up: N_i+1 = conv(conv_stride2(N_i) + P_i+1).

    N_3 is P_3 itself; every convolution of the path is 3x3 and followed by a ReLU, as in the paper (1803.01534,
    section 3.1). Weights are initialised as FPN's: Kaiming uniform with a = 1, biases zero.

    Args:
        channels: channels of every level.
        extra_levels: number of extra levels on top, stride-2 convolutions; each is computed from the level before,
            after a ReLU.
        extra_from: input of the first extra level, the last backbone level (`c5`) or the last level of the path (`p5`).
        norm: normalisation after every convolution; null: none, and the convolutions have biases.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 256,
        extra_levels: ExtraLevels = 2,
        extra_from: ExtraFrom = "c5",
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        self.top = list(in_shapes)[-1]
        last = in_shapes[self.top]

        def conv(in_channels: int, kernel: int, stride: int) -> nn.Module:
            layer = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=norm is None)
            init_convs(layer, init_uniform)
            return layer if norm is None else nn.Sequential(*with_norm(layer, norm))

        self.fpn = FPN(in_shapes=in_shapes, channels=channels, extra_levels=0, norm=norm)
        steps = len(in_shapes) - 1
        self.down = nn.ModuleList(conv(channels, 3, 2) for _ in range(steps))
        self.output = nn.ModuleList(conv(channels, 3, 1) for _ in range(steps))
        self.extra = ExtraConvs(conv, extra_from, (last.channels, channels), extra_levels)
        self.out_shapes = dict(self.fpn.out_shapes)
        self.out_shapes |= dict(pyramid_level(channels, s) for s in extra_strides(last.stride, extra_levels))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        path: list[Tensor] = []
        for i, level in enumerate(self.fpn(features).values()):
            path.append(F.relu(self.output[i - 1](F.relu(self.down[i - 1](path[-1])) + level)) if i else level)
        return dict(zip(self.out_shapes, self.extra(features[self.top], path), strict=True))
