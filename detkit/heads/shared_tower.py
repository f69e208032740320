"""RetinaNet's head: two towers of convolutions, shared by all levels (1708.02002, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from detkit.heads.base import Head, HeadOutputs, joint_logit, per_anchor
from detkit.heads.guidance import DistributionGuidance
from detkit.heads.towers import check_levels_alike, conv_tower
from detkit.layers.convs import init_convs
from detkit.layers.deformable import start_undeformed
from detkit.layers.norms import NormName
from detkit.registry import HEADS, Channels, NonNegativeInt
from detkit.registry.bounds import MOST_LAYERS


@HEADS.register()
class SharedTowerHead(Head):
    """A tower of 3x3 convolutions for classes and one for boxes, shared by all levels (1708.02002, section 4).

    Args:
        num_convs: convolutions per tower.
        box_convs: convolutions of the box tower where they are not `num_convs`.
        channels: width of the towers; null: that of the levels.
        norm: normalisation after every tower convolution; null: none, and the convolutions have biases. `bn` mixes
            the statistics of all levels: prefer `gn`.
        conv_bias: whether convolutions in front of a norm have a bias all the same, as in FCOS's published weights.
        deformable: how many convolutions of each tower, from the first, are deformable (1703.06211), as in DDOD, 1.
        quality_from: tower that the quality branch belongs to, where the losses want one.
        level_scales: multiply the box columns of every level by a factor of its own that is learned (FCOS, 1904.01355,
            section 3.2).
        implicit_objectness: predict the probability of an object beside that of each class, given one, and give the
            losses the logit of their product, so that objectness needs no target (YOLOF, 2103.09460; AutoAssign,
            2007.03496). The initial score is that of the loss all the same; MMDetection starts at half of it.
        guided: multiply the class scores by a probability that the shape of the box's distributions gives (GFLv2,
            2011.12885, section 3.2); the losses get the logit of the product. Needs a coder of distributions.
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
        deformable: NonNegativeInt = 0,
        quality_from: Literal["class", "box"] = "box",
        level_scales: bool = False,
        box_convs: Annotated[int, Interval(ge=0, le=MOST_LAYERS)] | None = None,
        implicit_objectness: bool = False,
        guided: bool = False,
        box_bias: Annotated[float, Interval(ge=-1e3, le=1e3)] = 0.0,
    ) -> None:
        super().__init__()
        check_levels_alike(in_channels, anchors_per_cell)
        self.num_columns, self.box_columns, self.quality_from = num_columns, box_columns, quality_from
        width = channels or in_channels[0]

        def tower(convs: int) -> nn.Sequential:
            return conv_tower(in_channels[0], width, convs, norm, with_bias=conv_bias, deformable=deformable)

        def predictor(convs: int, columns: int) -> nn.Conv2d:
            return nn.Conv2d(width if convs else in_channels[0], anchors_per_cell[0] * columns, 3, padding=1)

        box_convs = num_convs if box_convs is None else box_convs
        self.class_tower, self.box_tower = tower(num_convs), tower(box_convs)
        self.box_out = predictor(box_convs, box_columns)
        self.quality_out = predictor(box_convs if quality_from == "box" else num_convs, 1) if with_quality else None
        self.object_out = predictor(box_convs, 1) if implicit_objectness else None
        self.guidance = DistributionGuidance(box_columns) if guided else None
        self.multiplies = implicit_objectness or guided
        self.scales = nn.Parameter(torch.ones(len(in_channels))) if level_scales else None
        init = partial(nn.init.normal_, std=0.01)
        init_convs(self, init)
        start_undeformed(self)
        nn.init.constant_(self.box_out.bias, box_bias)  # type: ignore[arg-type]
        # Last, so that no other weight depends on the loss's number of columns: with any loss a run starts alike.
        self.class_out = predictor(num_convs, num_columns)
        init_convs(self.class_out, init)
        for _ in range(implicit_objectness + guided):  # each starts at one half
            class_bias = (2 * class_bias.sigmoid()).clamp(max=0.99).logit()
        self.class_out.bias.data.copy_(class_bias.repeat(anchors_per_cell[0]))  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        logits, deltas, quality = [], [], []
        for level, x in enumerate(features):
            classes, boxes = self.class_tower(x), self.box_tower(x)
            class_logits = per_anchor(self.class_out(classes), self.num_columns)
            if self.object_out is not None:
                class_logits = joint_logit(class_logits, per_anchor(self.object_out(boxes), 1))
            columns = per_anchor(self.box_out(boxes), self.box_columns)
            deltas.append(columns if self.scales is None else columns * self.scales[level])
            if self.guidance is not None:
                class_logits = joint_logit(class_logits, self.guidance(deltas[-1]))
            logits.append(class_logits)
            if self.quality_out is not None:
                quality.append(per_anchor(self.quality_out(boxes if self.quality_from == "box" else classes), 1))
        return HeadOutputs(logits, deltas, quality or None)
