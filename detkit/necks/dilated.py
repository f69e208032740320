"""One level for objects of all sizes: residual blocks of growing dilation (YOLOF, 2103.09460, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from annotated_types import MinLen
from torch import Tensor, nn

from detkit.layers.convs import init_convs, with_norm
from detkit.layers.norms import NormName
from detkit.necks.base import Neck, pyramid_level
from detkit.registry import NECKS, Channels, PositiveInt
from detkit.structures import FeatureShape


class DilatedBlock(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution, each with norm and ReLU, added to the input."""

    def __init__(self, channels: int, inner: int, dilation: int, norm: NormName) -> None:
        super().__init__()
        convs = (
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False),
            nn.Conv2d(inner, channels, 1, bias=False),
        )
        self.body = nn.Sequential(*(y for conv in convs for y in with_norm(conv, norm, nn.ReLU(inplace=True))))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


@NECKS.register()
class DilatedEncoder(Neck):
    """Projects the coarsest level, then widens what its cells see by residual blocks of growing dilation.

    Other levels are not used: give the backbone `out_features: [c5]`.

    Source: 2103.09460, section 4.1 and figure 5.

    Args:
        channels: channels of the level.
        inner_channels: channels inside the blocks.
        dilations: of the 3x3 convolution of each block.
        norm: normalisation after every convolution.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 512,
        inner_channels: Channels = 128,
        dilations: Annotated[Sequence[PositiveInt], MinLen(1)] = (2, 4, 6, 8),
        norm: NormName = "bn",
    ) -> None:
        super().__init__()
        self.source, shape = list(in_shapes.items())[-1]
        # With biases in front of the norms, as in the published weights.
        self.project = nn.Sequential(
            *with_norm(nn.Conv2d(shape.channels, channels, 1), norm),
            *with_norm(nn.Conv2d(channels, channels, 3, padding=1), norm),
        )
        self.blocks = nn.Sequential(*(DilatedBlock(channels, inner_channels, d, norm) for d in dilations))
        init_convs(self.project, partial(nn.init.kaiming_uniform_, a=1))
        init_convs(self.blocks, partial(nn.init.normal_, std=0.01))
        self.out_shapes = dict([pyramid_level(channels, shape.stride)])

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.blocks(self.project(features[self.source])) for name in self.out_shapes}
