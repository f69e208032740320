"""Weighted bidirectional feature pyramid of EfficientDet (1911.09070, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.convs import init_convs
from detkit.layers.norms import NormName, norm_layer
from detkit.layers.padding import pad_same
from detkit.necks.base import ExtraLevels, Neck, extra_strides, pyramid_level
from detkit.registry import NECKS, Channels, Layers, OpenFraction
from detkit.structures import FeatureShape

EPSILON = 1e-4
"""Epsilon of the fast normalised fusion (section 3.3)."""


class Fusion(nn.Module):
    """Fast normalised fusion of equal maps (section 3.3), SiLU, depthwise separable 3x3 convolution, norm.

    O = sum_i w_i / (epsilon + sum_j w_j) * I_i with w_i >= 0 by a ReLU; all weights are 1 at the start.
    """

    def __init__(self, inputs: int, channels: int, norm: Callable[[int], nn.Module], bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=bias)
        self.norm = norm(channels)

    def fractions(self) -> Tensor:
        """(inputs,) normalised weight of each map; they sum to almost 1."""
        weight = F.relu(self.weight)
        return weight / (weight.sum() + EPSILON)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W) of one size -> one map of that size."""
        mixed = torch.stack([w * x for w, x in zip(self.fractions(), maps, strict=True)]).sum(dim=0)
        out: Tensor = self.norm(self.pointwise(self.depthwise(F.silu(mixed))))
        return out


class Layer(nn.Module):
    """One pass down and one pass up over L levels (section 3.2, figure 2d); halve: pools a map for the way up."""

    def __init__(
        self,
        levels: int,
        channels: int,
        norm: Callable[[int], nn.Module],
        bias: bool,
        halve: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.halve = halve
        self.down = nn.ModuleList(Fusion(2, channels, norm, bias) for _ in range(levels - 1))
        # The coarsest level has no node on the way down, so it fuses two maps, the others three.
        self.up = nn.ModuleList(Fusion(3 if i < levels - 2 else 2, channels, norm, bias) for i in range(levels - 1))

    def forward(self, maps: list[Tensor], again: list[Tensor] | None = None) -> list[Tensor]:
        """L maps, finest first -> L maps of the same sizes. again: the maps for the way up, if they are others."""
        middle = [maps[-1]]
        for fuse, level in zip(reversed(self.down), reversed(maps[:-1]), strict=True):
            upsampled = F.interpolate(middle[0], size=level.shape[-2:], mode="nearest")
            middle.insert(0, fuse([level, upsampled]))
        out, maps = [middle[0]], maps if again is None else again
        for i, fuse in enumerate(self.up, start=1):
            below = self.halve(out[-1])
            out.append(fuse([maps[i], below] if i == len(maps) - 1 else [maps[i], middle[i], below]))
        return out


@NECKS.register()
class BiFPN(Neck):
    """Repeated top-down and bottom-up fusion with trainable, normalised weights (1911.09070, section 3).

    Each backbone level goes through a 1x1 convolution and a norm to `channels`; extra levels come from 3x3 max
    pooling with stride 2, the first one from the last backbone level through a separate 1x1 convolution.
    Convolutions are initialised as Kaiming normal (fan out), fusion weights as 1.

    Args:
        channels: channels of every level; 64, 88, 112, 160, ... for EfficientDet D0, D1, D2, D3, ...
        layers: rounds of fusion; 3, 4, 5, 6, ... for EfficientDet D0, D1, D2, D3, ...
        extra_levels: number of extra levels on top.
        norm: normalisation after every convolution (`bn` in the paper).
        published: compute what the authors' code and weights do beyond the paper: 1x1 convolutions have a bias, the
            levels between have a second 1x1 convolution for the way up of the first round, pooling pads with zeros,
            the odd one right and below, and batch normalisation has epsilon 0.001.
        norm_momentum: of batch normalisation; null: 0.01 if `published`, which a training of some hundred steps must
            not have, else 0.1.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 64,
        layers: Layers = 3,
        extra_levels: ExtraLevels = 2,
        norm: NormName = "bn",
        published: bool = False,
        norm_momentum: OpenFraction | None = None,
    ) -> None:
        super().__init__()
        momentum = norm_momentum or (0.01 if published else 0.1)
        make = norm_layer(norm, 1e-3 if published else 1e-5, momentum)
        self.halve = halve_same if published else halve
        self.top = list(in_shapes)[-1]
        shapes = list(in_shapes.values())
        strides = [s.stride for s in shapes] + extra_strides(shapes[-1].stride, extra_levels)
        if len(strides) < 2:
            raise ValueError(f"extra_levels: {extra_levels}: there is only one level, and fusion needs at least two")

        def lateral(in_channels: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=published), make(channels))

        self.lateral = nn.ModuleDict({n: lateral(s.channels) for n, s in in_shapes.items()})
        self.extra = nn.ModuleList([lateral(shapes[-1].channels)] if extra_levels else [])
        between = list(in_shapes.items())[1:] if published else []
        self.again = nn.ModuleDict({n: lateral(s.channels) for n, s in between})
        self.layers = nn.ModuleList(Layer(len(strides), channels, make, published, self.halve) for _ in range(layers))
        init_convs(self, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        self.out_shapes = dict(pyramid_level(channels, stride) for stride in strides)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        maps = [layer(features[n]) for n, layer in self.lateral.items()]
        for i in range(len(self.out_shapes) - len(maps)):
            maps.append(self.halve(self.extra[0](features[self.top]) if i == 0 else maps[-1]))
        again = [maps[0], *(layer(features[n]) for n, layer in self.again.items())]
        again += maps[len(again) :]
        for i, layer in enumerate(self.layers):
            maps = layer(maps, again if i == 0 else None)
        return dict(zip(self.out_shapes, maps, strict=True))


def halve(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)) by 3x3 max pooling."""
    return F.max_pool2d(x, 3, stride=2, padding=1)


def halve_same(x: Tensor) -> Tensor:
    """Like `halve`, of a map that is padded with zeros, the odd one right and below, as in TensorFlow."""
    return F.max_pool2d(pad_same(x, 3, 2), 3, stride=2)
