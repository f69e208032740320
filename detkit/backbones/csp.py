"""CSPDarknet of YOLOX (2107.08430) and CSPNeXt of RTMDet (2212.07784)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detkit.backbones.adapt import Map, choose_levels, layers_of, pad_to_multiple
from detkit.backbones.base import Backbone, OutFeatures
from detkit.backbones.pretrained import warn_of_frozen_random
from detkit.layers.csp import BlockName, ConvBlock, CSPLayer, NormFactory, PyramidPooling
from detkit.layers.norms import NormName, norm_layer
from detkit.registry import BACKBONES, Channels, OpenFraction, Positive
from detkit.structures import FeatureShape

CHANNELS = (64, 128, 256, 512, 1024)
"""Of the stem and of the four stages, at width 1."""
STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


class Focus(nn.Module):
    """The four pixels of every 2x2 square as channels of one, then a convolution (YOLOX's stem)."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormFactory) -> None:
        super().__init__()
        self.conv = ConvBlock(4 * in_channels, out_channels, 3, norm)

    def forward(self, images: Tensor) -> Tensor:
        x = pad_to_multiple(images, 2)
        squares = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        out: Tensor = self.conv(torch.cat(squares, dim=1))
        return out


class CSPBackbone(Backbone):
    """A stem of stride 2 and four stages of stride 2 each; the last pools and adds nothing to its blocks' outputs.

    blocks: bottlenecks of each stage at depth 1.
    """

    def __init__(
        self,
        stem: nn.Module,
        widths: Sequence[int],
        blocks: Sequence[int],
        norm: NormFactory,
        block: BlockName,
        attention: bool,
        out_features: list[str] | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        levels = {n: Map(c, stride, False) for (n, stride), c in zip(STRIDES.items(), widths[1:], strict=True)}
        levels = choose_levels(name, levels, out_features)
        self.out_shapes = {n: FeatureShape(m.channels, m.stride) for n, m in levels.items()}
        self.last, self.stem = int(max(levels)[1]) - 1, stem
        for i in range(self.last):
            channels, top = widths[i + 1], i == len(STRIDES) - 1
            pool = [PyramidPooling(channels, norm)] if top else []
            layer = CSPLayer(channels, channels, blocks[i], norm, block=block, add=not top, attention=attention)
            down = ConvBlock(widths[i], channels, 3, norm, stride=2)
            self.add_module(f"stage{i + 1}", nn.Sequential(down, *pool, layer))

    def layer_names(self) -> list[list[str]]:
        return layers_of(self)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.stem(images)
        features = {}
        for i, name in enumerate(list(STRIDES)[: self.last]):
            x = self.get_submodule(f"stage{i + 1}")(x)
            if name in self.out_shapes:
                features[name] = x
        return features


def scaled(values: Sequence[int], factor: float) -> list[int]:
    """Numbers of blocks times a factor, at least 1."""
    return [max(1, round(value * factor)) for value in values]


def widths_of(factor: float) -> list[int]:
    """`CHANNELS` times a factor; ValueError if the stem would have none for its halves."""
    widths = [int(channels * factor) for channels in CHANNELS]
    if widths[0] < 2:
        raise ValueError(f"width: {factor} leaves the stem {widths[0]} channels; give at least {2 / CHANNELS[0]}")
    return widths


@BACKBONES.register()
class CSPDarknet(CSPBackbone):
    """YOLOX's backbone: 1x1 and 3x3 bottlenecks in cross stage partial layers (2107.08430; CSPNet, 1911.11929).

    Depth and width: tiny 0.33 and 0.375, s 0.33 and 0.5, m 0.67 and 0.75, l 1 and 1, x 1.33 and 1.25.

    Args:
        depth: factor on the number of bottlenecks, 3, 9, 9 and 3.
        width: factor on the number of channels, 64 to 1024.
        norm: normalisation after every convolution.
        norm_eps: epsilon of a batch norm.
        norm_momentum: momentum of a batch norm.
        in_channels: image channels.
        out_features: levels among c2, c3, c4 and c5 (strides 4 to 32); null: c3, c4 and c5. Later stages are left out.
    """

    def __init__(
        self,
        *,
        depth: Positive = 1.0,
        width: Positive = 1.0,
        norm: NormName = "bn",
        norm_eps: Positive = 1e-3,
        norm_momentum: OpenFraction = 0.03,
        in_channels: Channels = 3,
        out_features: OutFeatures = None,
    ) -> None:
        widths, make = widths_of(width), norm_layer(norm, norm_eps, norm_momentum)
        stem = Focus(in_channels, widths[0], make)
        super().__init__(stem, widths, scaled((3, 9, 9, 3), depth), make, "darknet", False, out_features)
        self.norm: NormName = norm

    def load_pretrained(self) -> None:
        warn_of_frozen_random("CSPDarknet", self.norm, way_out="Set backbone.norm=bn")


@BACKBONES.register()
class CSPNeXt(CSPBackbone):
    """RTMDet's backbone: bottlenecks with 5x5 depthwise convolutions, and channel attention (2212.07784, section 3.2).

    Depth and width: tiny 0.167 and 0.375, s 0.33 and 0.5, m 0.67 and 0.75, l 1 and 1, x 1.33 and 1.25.

    Args:
        depth: factor on the number of bottlenecks, 3, 6, 6 and 3.
        width: factor on the number of channels, 64 to 1024.
        attention: whether channels are weighed at the end of every stage.
        norm: normalisation after every convolution.
        norm_eps: epsilon of a batch norm.
        norm_momentum: momentum of a batch norm.
        in_channels: image channels.
        out_features: levels among c2, c3, c4 and c5 (strides 4 to 32); null: c3, c4 and c5. Later stages are left out.
    """

    def __init__(
        self,
        *,
        depth: Positive = 1.0,
        width: Positive = 1.0,
        attention: bool = True,
        norm: NormName = "bn",
        norm_eps: Positive = 1e-5,
        norm_momentum: OpenFraction = 0.1,
        in_channels: Channels = 3,
        out_features: OutFeatures = None,
    ) -> None:
        widths, make = widths_of(width), norm_layer(norm, norm_eps, norm_momentum)
        half = widths[0] // 2
        stem = nn.Sequential(
            ConvBlock(in_channels, half, 3, make, stride=2),
            ConvBlock(half, half, 3, make),
            ConvBlock(half, widths[0], 3, make),
        )
        super().__init__(stem, widths, scaled((3, 6, 6, 3), depth), make, "cspnext", attention, out_features)
        self.norm: NormName = norm

    def load_pretrained(self) -> None:
        warn_of_frozen_random("CSPNeXt", self.norm, way_out="Set backbone.norm=bn")
