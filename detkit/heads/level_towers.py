"""Towers of their own for every level, or shared convolutions with norms of their own (YOLOX, RTMDet)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from detkit.heads.base import Head, HeadOutputs, per_anchor
from detkit.layers.convs import init_convs
from detkit.layers.norms import NormName, norm_layer
from detkit.registry import HEADS, Channels, OpenFraction, Positive
from detkit.registry.bounds import MOST_LAYERS

Activation = Literal["relu", "silu"]
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "silu": partial(nn.SiLU, inplace=True),
}


class LevelTowers(nn.Module):
    """A tower of 3x3 convolutions for each level, whose norms are always its own. shared: one set of convolutions."""

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int,
        count: int,
        shared: bool,
        norm: Callable[[int], nn.Module],
        activation: Activation,
    ) -> None:
        super().__init__()

        def convs(channels: int) -> nn.ModuleList:
            sources = [channels, *[width] * count][:count]
            return nn.ModuleList(nn.Conv2d(source, width, 3, padding=1, bias=False) for source in sources)

        self.convs = nn.ModuleList(convs(channels) for channels in (in_channels[:1] if shared else in_channels))
        self.norms = nn.ModuleList(nn.ModuleList(norm(width) for _ in range(count)) for _ in in_channels)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        towers = []
        for level, x in enumerate(features):
            convs, norms = self.convs[level % len(self.convs)], self.norms[level]
            for conv, norm in zip(convs, norms, strict=True):  # type: ignore[call-overload]
                x = self.activation(norm(conv(x)))
            towers.append(x)
        return towers


@HEADS.register()
class LevelTowerHead(Head):
    """Towers for classes and boxes with norms and 1x1 predictors of each level's own; the convolutions may be shared.

    With convolutions of its own for every level it is the decoupled head of YOLOX (2107.08430, section 2.1), and levels
    may differ in channels and anchors; with shared ones that of RTMDet (2212.07784, section 3.2).
    The quality branch belongs to the box tower.

    Args:
        num_convs: convolutions per tower.
        channels: width of the towers; null: that of the finest level.
        share_convs: whether all levels share the convolutions of the towers.
        activation: after every norm.
        norm: normalisation after every convolution.
        norm_eps: epsilon of a batch norm.
        norm_momentum: momentum of a batch norm.
        quality_prior: score that the quality branch starts with, where there is one.
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
        num_convs: Annotated[int, Interval(ge=1, le=MOST_LAYERS)] = 2,
        channels: Channels | None = None,
        share_convs: bool = False,
        activation: Activation = "silu",
        norm: NormName = "bn",
        norm_eps: Positive = 1e-5,
        norm_momentum: OpenFraction = 0.1,
        quality_prior: OpenFraction = 0.01,
    ) -> None:
        super().__init__()
        if share_convs and len(set(in_channels)) != 1:
            raise ValueError(
                f"share_convs: all levels share the convolutions, but their channels differ: {in_channels}. Set "
                "share_convs: false, or use a neck that gives all levels the same channels"
            )
        self.num_columns, self.box_columns = num_columns, box_columns
        width, make = channels or in_channels[0], norm_layer(norm, norm_eps, norm_momentum)

        def predictors(columns: int) -> nn.ModuleList:
            layers = nn.ModuleList(nn.Conv2d(width, count * columns, 1) for count in anchors_per_cell)
            init_convs(layers, partial(nn.init.normal_, std=0.01))
            return layers

        self.class_towers, self.box_towers = (
            LevelTowers(in_channels, width, num_convs, share_convs, make, activation) for _ in range(2)
        )
        self.box_out = predictors(box_columns)
        self.quality_out = predictors(1) if with_quality else None
        for layer in self.quality_out or ():
            layer.bias.data.fill_(torch.tensor(quality_prior).logit())  # type: ignore[operator]
        # Last, so that no other weight depends on the loss's number of columns: with any loss a run starts alike.
        self.class_out = predictors(num_columns)
        for layer, count in zip(self.class_out, anchors_per_cell, strict=True):
            layer.bias.data.copy_(class_bias.repeat(count))  # type: ignore[operator]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        classes, boxes = self.class_towers(features), self.box_towers(features)

        def predicted(layers: nn.ModuleList, maps: list[Tensor], columns: int) -> list[Tensor]:
            return [per_anchor(layer(x), columns) for layer, x in zip(layers, maps, strict=True)]

        quality = None if self.quality_out is None else predicted(self.quality_out, boxes, 1)
        logits = predicted(self.class_out, classes, self.num_columns)
        return HeadOutputs(logits, predicted(self.box_out, boxes, self.box_columns), quality)
