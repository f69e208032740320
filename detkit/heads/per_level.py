"""SSD's head: separate convolutions for every level (1512.02325, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detkit.heads.base import Head, per_anchor
from detkit.layers.convs import depthwise, init_convs, mobile_init
from detkit.layers.norms import NormName
from detkit.registry import HEADS


@HEADS.register()
class PerLevelHead(Head):
    """Two 3x3 convolutions per level, one for classes and one for boxes; levels share nothing.

    So levels may differ in channels and in anchors per cell.

    Source: 1512.02325, section 2.1.

    Args:
        lite: use a depthwise 3x3 convolution with ReLU6 and a 1x1 convolution instead (1801.04381, section 6.2).
        norm: normalisation after the depthwise convolutions; requires `lite`.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        box_columns: int = 4,
        lite: bool = False,
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        if norm is not None and not lite:
            raise ValueError(f"norm: {norm} requires lite: true")
        self.num_columns, self.box_columns = num_columns, box_columns

        def predictors(columns: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(depthwise(channels, 1, 1, norm), nn.Conv2d(channels, count * columns, 1))
                if lite
                else nn.Conv2d(channels, count * columns, 3, padding=1)
                for channels, count in zip(in_channels, anchors_per_cell, strict=True)
            )

        init = mobile_init if lite else nn.init.xavier_uniform_
        self.box_out = predictors(box_columns)
        init_convs(self.box_out, init)
        # Last, so that no other weight depends on the loss's number of columns: with any loss a run starts alike.
        self.class_out = predictors(num_columns)
        init_convs(self.class_out, init)
        for level, count in zip(self.class_out, anchors_per_cell, strict=True):
            last = level[-1] if lite else level  # type: ignore[index]
            last.bias.data.copy_(class_bias.repeat(count))  # type: ignore[operator]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits = [per_anchor(f(x), self.num_columns) for f, x in zip(self.class_out, features, strict=True)]
        deltas = [per_anchor(f(x), self.box_columns) for f, x in zip(self.box_out, features, strict=True)]
        return logits, deltas
