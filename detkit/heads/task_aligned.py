"""TOOD's task-aligned head (2108.07755, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.heads.base import Head, HeadOutputs, per_anchor
from detkit.heads.star import positive
from detkit.heads.towers import check_levels_alike, check_one_anchor, conv_tower
from detkit.layers.convs import init_convs, with_norm
from detkit.layers.norms import NormName
from detkit.registry import HEADS, Channels, PositiveInt
from detkit.registry.bounds import MOST_LAYERS

LEAST_DISTANCE_FROM_ONE = 1e-20
"""The combined probability stays below 1 by it, so that its logit is finite."""
AFTER = 3
"""Modules of a tower for one convolution: convolution, norm, ReLU."""


class TaskDecomposition(nn.Module):
    """Weighs the outputs of a tower's convolutions by attention, and reduces them (section 3.1, equations 2 and 3)."""

    def __init__(self, width: int, num_convs: int, reduction: int, norm: NormName | None) -> None:
        super().__init__()
        stacked = width * num_convs
        hidden = max(1, stacked // reduction)
        self.attention = nn.Sequential(
            nn.Conv2d(stacked, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, num_convs, 1), nn.Sigmoid()
        )
        conv = nn.Conv2d(stacked, width, 1, bias=norm is None)
        self.reduce = nn.Sequential(*with_norm(conv, norm, nn.ReLU(inplace=True)))

    def forward(self, stacked: Tensor, mean: Tensor) -> Tensor:
        """(B, n * width, H, W) and its mean over H and W (B, n * width, 1, 1) -> (B, width, H, W)."""
        weights = self.attention(mean)
        weights = weights.repeat_interleave(stacked.shape[1] // weights.shape[1], dim=1)
        reduced: Tensor = self.reduce(stacked * weights)
        return reduced


@HEADS.register()
class TaskAlignedHead(Head):
    """One tower for both tasks, decomposed into class and box features, whose predictions are then aligned.

    The probability of a class is the geometric mean of that of the class features and of a map of the tower, one for
    all classes; the head gives its logit, computed in log space, so that losses on sigmoid scores work unchanged. Each
    edge of a box is read at a place beside its own, by offsets that the tower predicts; where the edges then cross,
    they stay as they were. Outside the map an edge is 0, as in MMDetection. The columns are the distances to the four
    edges in cells, as `DistanceCoder` takes them with `link: linear`. All levels share the weights.

    Source: 2108.07755, section 3.1.

    Args:
        num_convs: convolutions of the tower.
        channels: width of the tower; null: that of the levels.
        norm: normalisation after every convolution of the tower and after the decomposition; null: none.
        reduction: how many times narrower than its input the hidden layer of the attention is.
        hidden: width in front of the maps of probability and offsets; null: a quarter of the tower's.
    """

    multiplies = True

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        num_convs: Annotated[int, Interval(ge=1, le=MOST_LAYERS)] = 6,
        channels: Channels | None = None,
        norm: NormName | None = "gn",
        reduction: PositiveInt = 48,
        hidden: Channels | None = None,
    ) -> None:
        super().__init__()
        check_levels_alike(in_channels, anchors_per_cell)
        check_one_anchor(anchors_per_cell, "TaskAlignedHead")
        self.num_columns, width = num_columns, channels or in_channels[0]
        stacked, hidden = width * num_convs, hidden or max(1, width // 4)
        self.per_conv = AFTER - (norm is None)
        self.tower = conv_tower(in_channels[0], width, num_convs, norm)
        self.class_features = TaskDecomposition(width, num_convs, reduction, norm)
        self.box_features = TaskDecomposition(width, num_convs, reduction, norm)
        self.box_out = nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(in_channels)))

        def map_of(outputs: int) -> nn.Sequential:
            layers = nn.Conv2d(stacked, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, outputs, 3, padding=1)
            return nn.Sequential(*layers)

        self.offset_map, self.probability_map = map_of(8), map_of(1)
        init = partial(nn.init.normal_, std=0.01)
        init_convs(self, init)
        for part in (self.class_features.attention, self.box_features.attention, self.offset_map[-1]):
            init_convs(part, partial(nn.init.normal_, std=0.001))
        # Last, so that no other weight depends on the loss's number of columns.
        self.class_out = nn.Conv2d(width, num_columns, 3, padding=1)
        init_convs(self.class_out, init)
        self._start_at(class_bias)

    @torch.no_grad()
    def _start_at(self, bias: Tensor) -> None:
        """Sets the biases so that the combined probability is that of `bias` (C,)."""
        shared = bias.amax()
        self.probability_map[-1].get_parameter("bias").fill_(shared)
        own = (2 * F.logsigmoid(bias) - F.logsigmoid(shared)).exp()
        self.class_out.bias.copy_(own.logit())  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        logits, deltas = [], []
        for level, x in enumerate(features):
            outputs = []
            for i, layer in enumerate(self.tower):
                x = layer(x)
                if i % self.per_conv == self.per_conv - 1:
                    outputs.append(x)
            stacked = torch.cat(outputs, dim=1)
            mean = stacked.mean(dim=(2, 3), keepdim=True)
            classes = self.class_out(self.class_features(stacked, mean))
            logits.append(per_anchor(geometric_mean_logit(classes, self.probability_map(stacked)), self.num_columns))
            distances = self._scaled(self.box_out(self.box_features(stacked, mean)), level)
            deltas.append(per_anchor(moved_edges(distances, self.offset_map(stacked)), 4))
        return HeadOutputs(logits, deltas)

    def _scaled(self, x: Tensor, level: int) -> Tensor:
        """Distances in cells: exp(x), times the factor of the level."""
        return positive(x, torch.ones_like(self.scales[level])) * self.scales[level]


def geometric_mean_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of sqrt(sigmoid(a) sigmoid(b)), broadcast, in float32 at least; finite however sure both are."""
    kind = torch.promote_types(a.dtype, torch.float32)
    log = 0.5 * (F.logsigmoid(a.to(kind)) + F.logsigmoid(b.to(kind)))
    return log - (-torch.expm1(log.clamp(max=-LEAST_DISTANCE_FROM_ONE))).log()


def moved_edges(distances: Tensor, offsets: Tensor) -> Tensor:
    """Reads each of the four edges (B, 4, H, W), given by distances, at its own offset (B, 8, H, W) -> distances.

    Distances and offsets, (y, x) of each edge, are in cells. An edge is interpolated as a coordinate, 0 outside the
    map.
    """
    from torchvision.ops import deform_conv2d

    height, width = distances.shape[-2:]
    y, x = (torch.arange(size, dtype=distances.dtype, device=distances.device) for size in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    points, signs = torch.stack((x, y, x, y)), distances.new_tensor((-1.0, -1.0, 1.0, 1.0)).view(4, 1, 1)
    edges = points + signs * distances
    moved: Tensor = deform_conv2d(edges, offsets.to(edges.dtype), edges.new_ones(4, 1, 1, 1))
    crossed = (moved[:, :2] > moved[:, 2:]).any(dim=1, keepdim=True)
    return (torch.where(crossed, edges, moved) - points) * signs
