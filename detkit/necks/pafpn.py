"""Path aggregation network's bottom-up path on top of a feature pyramid (1803.01534, section 3.1)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import ExtraLevels, Neck, extra_strides, pyramid_level
from detkit.necks.fpn import FPN
from detkit.registry import NECKS, Channels
from detkit.structures import FeatureShape


@NECKS.register()
class PAFPN(Neck):
    """The pyramid of `FPN`, then a path from its finest level up: N_i+1 = conv(conv_stride2(N_i) + P_i+1).

    N_3 is P_3 itself; every convolution of the path is 3x3 and followed by a ReLU, as in the paper.
    Weights are initialised as FPN's: Kaiming uniform with a = 1, biases zero.

    Args:
        channels: channels of every level.
        extra_levels: number of extra levels on top, stride-2 convolutions; each is computed from the level before,
            after a ReLU.
        extra_from: input of the first extra level, the last backbone level (`c5`) or the last level of the path (`p5`).
        norm: normalisation after every convolution; None: none, and the convolutions have biases.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 256,
        extra_levels: ExtraLevels = 2,
        extra_from: Literal["c5", "p5"] = "c5",
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        self.extra_from, self.top = extra_from, list(in_shapes)[-1]
        last = in_shapes[self.top]

        def conv(in_channels: int, stride: int) -> nn.Module:
            layer = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=norm is None)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            return layer if norm is None else nn.Sequential(layer, norm_layer(norm)(channels))

        self.fpn = FPN(in_shapes=in_shapes, channels=channels, extra_levels=0, norm=norm)
        steps = len(in_shapes) - 1
        self.down = nn.ModuleList(conv(channels, 2) for _ in range(steps))
        self.output = nn.ModuleList(conv(channels, 1) for _ in range(steps))
        first = last.channels if extra_from == "c5" else channels
        self.extra = nn.ModuleList(conv(first if i == 0 else channels, 2) for i in range(extra_levels))
        self.out_shapes = dict(self.fpn.out_shapes)
        self.out_shapes |= dict(pyramid_level(channels, s) for s in extra_strides(last.stride, extra_levels))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone levels -> p levels, finest first."""
        path: list[Tensor] = []
        for i, level in enumerate(self.fpn(features).values()):
            path.append(F.relu(self.output[i - 1](F.relu(self.down[i - 1](path[-1])) + level)) if i else level)
        x = features[self.top] if self.extra_from == "c5" else path[-1]
        for i, layer in enumerate(self.extra):
            x = layer(x if i == 0 else F.relu(x))
            path.append(x)
        return dict(zip(self.out_shapes, path, strict=True))
