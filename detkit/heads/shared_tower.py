"""RetinaNet's head: two towers of convolutions, shared by all levels (1708.02002, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from detkit.heads.base import Head, HeadOutputs, per_anchor
from detkit.layers.convs import init_convs, with_norm
from detkit.layers.norms import NormName
from detkit.registry import HEADS, Channels
from detkit.registry.bounds import MOST_LAYERS


@HEADS.register()
class SharedTowerHead(Head):
    """A tower of 3x3 convolutions for classes and one for boxes, shared by all levels (1708.02002, section 4).

    Args:
        num_convs: convolutions per tower.
        channels: width of the towers; null: that of the levels.
        norm: normalisation after every tower convolution; null: none, and the convolutions have biases. `bn` mixes
            the statistics of all levels: prefer `gn`.
        conv_bias: whether convolutions in front of a norm have a bias all the same, as in FCOS's published weights.
        quality_from: tower that the quality branch belongs to, where the losses want one.
        level_scales: multiply the box columns of every level by a factor of its own that is learned (FCOS, 1904.01355,
            section 3.2).
        box_bias: initial bias of the box columns; above 0 for distances that a coder takes a ReLU of.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        box_columns: int = 4,
        with_quality: bool = False,
        num_convs: Annotated[int, Interval(ge=0, le=MOST_LAYERS)] = 4,
        channels: Channels | None = None,
        norm: NormName | None = None,
        conv_bias: bool = False,
        quality_from: Literal["class", "box"] = "box",
        level_scales: bool = False,
        box_bias: Annotated[float, Interval(ge=-1e3, le=1e3)] = 0.0,
    ) -> None:
        super().__init__()
        for what, values in (("channels", in_channels), ("anchors per cell", anchors_per_cell)):
            if len(set(values)) != 1:
                raise ValueError(
                    f"all levels share the towers, but their {what} differ: {values}. Use PerLevelHead, or a neck "
                    "such as FPN that gives all levels the same channels"
                )
        self.num_columns, self.box_columns, self.quality_from = num_columns, box_columns, quality_from
        width = channels or in_channels[0]

        def tower() -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in range(num_convs):
                source = in_channels[0] if i == 0 else width
                conv = nn.Conv2d(source, width, 3, padding=1, bias=conv_bias or norm is None)
                layers += with_norm(conv, norm, nn.ReLU(inplace=True))
            return nn.Sequential(*layers)

        self.class_tower, self.box_tower = tower(), tower()
        last = width if num_convs else in_channels[0]
        self.box_out = nn.Conv2d(last, anchors_per_cell[0] * box_columns, 3, padding=1)
        self.quality_out = nn.Conv2d(last, anchors_per_cell[0], 3, padding=1) if with_quality else None
        self.scales = nn.Parameter(torch.ones(len(in_channels))) if level_scales else None
        init = partial(nn.init.normal_, std=0.01)
        init_convs(self, init)
        nn.init.constant_(self.box_out.bias, box_bias)  # type: ignore[arg-type]
        # Last, so that no other weight depends on the loss's number of columns: with any loss a run starts alike.
        self.class_out = nn.Conv2d(last, anchors_per_cell[0] * num_columns, 3, padding=1)
        init_convs(self.class_out, init)
        self.class_out.bias.data.copy_(class_bias.repeat(anchors_per_cell[0]))  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        logits, deltas, quality = [], [], []
        for level, x in enumerate(features):
            classes, boxes = self.class_tower(x), self.box_tower(x)
            logits.append(per_anchor(self.class_out(classes), self.num_columns))
            columns = per_anchor(self.box_out(boxes), self.box_columns)
            deltas.append(columns if self.scales is None else columns * self.scales[level])
            if self.quality_out is not None:
                quality.append(per_anchor(self.quality_out(boxes if self.quality_from == "box" else classes), 1))
        return HeadOutputs(logits, deltas, quality or None)
