"""EfficientDet's head: two towers of depthwise separable convolutions (1911.09070, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.heads.base import Head, HeadOutputs, per_anchor
from detkit.layers.norms import NormName, norm_layer
from detkit.registry import HEADS, Channels, OpenFraction, Positive
from detkit.registry.bounds import MOST_LAYERS


class Separable(nn.Sequential):
    """A depthwise 3x3 convolution, then a 1x1 convolution with a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1),
        )


class Tower(nn.Module):
    """Separable convolutions that all levels share, each with a norm for every level, and SiLU."""

    def __init__(
        self, in_channels: int, channels: int, count: int, levels: int, make: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Separable(channels if i else in_channels, channels) for i in range(count))
        self.norms = nn.ModuleList(nn.ModuleList(make(channels) for _ in range(levels)) for _ in range(count))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """(B, in_channels, H, W) of a level -> (B, channels, H, W)."""
        for conv, norms in zip(self.convs, self.norms, strict=True):
            x = F.silu(norms[level](conv(x)))  # type: ignore[index]
        return x


@HEADS.register()
class SeparableTowerHead(Head):
    """Two towers of depthwise separable convolutions, shared by all levels but for their norms (1911.09070, 4.1).

    Args:
        num_convs: convolutions per tower; 3, 3, 3, 4, ... for EfficientDet D0, D1, D2, D3, ...
        channels: width of the towers; null: that of the levels.
        norm: normalisation after every convolution of a tower, with statistics of its own for every level.
        epsilon: of batch normalisation.
        norm_momentum: of batch normalisation. A training of some hundred steps needs more than the published 0.01.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        box_columns: int = 4,
        num_convs: Annotated[int, Interval(ge=0, le=MOST_LAYERS)] = 3,
        channels: Channels | None = None,
        norm: NormName = "bn",
        epsilon: Positive = 1e-3,
        norm_momentum: OpenFraction = 0.01,
    ) -> None:
        super().__init__()
        for what, values in (("channels", in_channels), ("anchors per cell", anchors_per_cell)):
            if len(set(values)) != 1:
                raise ValueError(
                    f"all levels share the towers, but their {what} differ: {values}. Use PerLevelHead, or a neck "
                    "such as BiFPN that gives all levels the same channels"
                )
        self.num_columns, self.box_columns = num_columns, box_columns
        width, levels, anchors = channels or in_channels[0], len(in_channels), anchors_per_cell[0]
        last = width if num_convs else in_channels[0]
        self.class_tower, self.box_tower = (
            Tower(in_channels[0], width, num_convs, levels, norm_layer(norm, epsilon, norm_momentum)) for _ in range(2)
        )
        self.box_out = Separable(last, anchors * box_columns)
        # Last, so that no other weight depends on the loss's number of columns: with any loss a run starts alike.
        self.class_out = Separable(last, anchors * num_columns)
        for out in (self.box_out, self.class_out):
            nn.init.normal_(out[1].weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(out[1].bias)  # type: ignore[arg-type]
        self.class_out[1].bias.data.copy_(class_bias.repeat(anchors))  # type: ignore[operator]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        logits = [per_anchor(self.class_out(self.class_tower(x, i)), self.num_columns) for i, x in enumerate(features)]
        deltas = [per_anchor(self.box_out(self.box_tower(x, i)), self.box_columns) for i, x in enumerate(features)]
        return HeadOutputs(logits, deltas)
