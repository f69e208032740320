"""A path down and one up with cross stage partial layers (YOLOX, 2107.08430; RTMDet, 2212.07784)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.csp import BlockName, ConvBlock, CSPLayer
from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import Neck, pyramid_level
from detkit.registry import NECKS, Channels, Layers, OpenFraction, Positive
from detkit.structures import FeatureShape


@NECKS.register()
class CSPPAFPN(Neck):
    """A top-down and a bottom-up path that join maps by concatenation and a cross stage partial layer.

    Levels keep the backbone's channels up to the last convolution.

    Source: 2107.08430, section 2.1 (as in YOLOv5); path aggregation: 1803.01534.

    Args:
        channels: channels of every level.
        blocks: bottlenecks in each layer; YOLOX and RTMDet scale them with the backbone's depth, 3 at 1.
        block: bottlenecks of YOLOX (`darknet`) or RTMDet (`cspnext`); nothing is added to their outputs.
        out_kernel: side of the last convolution of each level, 1 in YOLOX and 3 in RTMDet.
        norm: normalisation after every convolution.
        norm_eps: epsilon of a batch norm.
        norm_momentum: momentum of a batch norm.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 256,
        blocks: Layers = 3,
        block: BlockName = "darknet",
        out_kernel: Literal[1, 3] = 1,
        norm: NormName = "bn",
        norm_eps: Positive = 1e-5,
        norm_momentum: OpenFraction = 0.1,
    ) -> None:
        super().__init__()
        shapes, make = list(in_shapes.values()), norm_layer(norm, norm_eps, norm_momentum)
        strides, widths = [s.stride for s in shapes], [s.channels for s in shapes]
        if any(2 * fine != coarse for fine, coarse in pairwise(strides)):
            raise ValueError(
                f"CSPPAFPN needs levels of strides that double, not {strides}: choose backbone.out_features, such as "
                "[c3, c4, c5]"
            )

        def layer(in_channels: int, out_channels: int) -> CSPLayer:
            return CSPLayer(in_channels, out_channels, blocks, make, block=block, add=False)

        # Lists from the finest level to the coarsest.
        pairs = list(pairwise(widths))
        self.reduce = nn.ModuleList(ConvBlock(coarse, fine, 1, make) for fine, coarse in pairs)
        self.top_down = nn.ModuleList(layer(2 * fine, fine) for fine, _ in pairs)
        self.down = nn.ModuleList(ConvBlock(fine, fine, 3, make, stride=2) for fine, _ in pairs)
        self.bottom_up = nn.ModuleList(layer(2 * fine, coarse) for fine, coarse in pairs)
        self.output = nn.ModuleList(ConvBlock(width, channels, out_kernel, make) for width in widths)
        self.out_shapes = dict(pyramid_level(channels, stride) for stride in strides)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        maps = list(features.values())
        top = maps[-1]
        reduced: list[Tensor] = []
        for i in reversed(range(len(self.reduce))):
            reduced.insert(0, self.reduce[i](top))
            wide = F.interpolate(reduced[0], size=maps[i].shape[-2:], mode="nearest")
            top = self.top_down[i](torch.cat((wide, maps[i]), dim=1))
        path = [top]
        for down, join, other in zip(self.down, self.bottom_up, reduced, strict=True):
            path.append(join(torch.cat((down(path[-1]), other), dim=1)))
        levels = (conv(x) for conv, x in zip(self.output, path, strict=True))
        return dict(zip(self.out_shapes, levels, strict=True))
