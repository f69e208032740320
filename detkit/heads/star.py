"""VFNet's head: it looks at nine points of a first box to score and refine it (2008.13367, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from detkit.heads.base import Head, HeadOutputs, per_anchor
from detkit.heads.towers import check_levels_alike, check_one_anchor, conv_tower
from detkit.layers.convs import init_convs
from detkit.layers.deformable import deform
from detkit.layers.norms import NormName
from detkit.registry import HEADS, Channels, Fraction, Positive
from detkit.registry.bounds import MOST_LAYERS

LARGEST_EXPONENT = 12.0
"""exp of it, in sides of an anchor, is more than any image has."""


@HEADS.register()
class StarHead(Head):
    """Predicts a first box at every point, looks at nine points of it, scores it there and refines it.

    The nine points are the anchor's middle, and the first box's corners and the middles of its edges: a deformable
    convolution reads there, one for the classes and one for four factors on the first distances. All levels share the
    weights. The columns are the distances to the four edges in units of `unit` cells, as `DistanceCoder` takes them
    with `link: linear`; `HeadOutputs.first` are those of the first box.

    Source: 2008.13367, sections 3.2 and 3.3.

    Args:
        num_convs: convolutions per tower; the boxes have one more in front of the first box.
        channels: width of the towers; null: that of the levels.
        norm: normalisation after every tower convolution; null: none.
        unit: cells in a unit of distance: 8 where it is the side of an anchor of 8 strides.
        star_gradient: fraction of the gradient that reaches the first box through the nine points.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        num_convs: Annotated[int, Interval(ge=0, le=MOST_LAYERS)] = 3,
        channels: Channels | None = None,
        norm: NormName | None = "gn",
        unit: Positive = 8.0,
        star_gradient: Fraction = 0.1,
    ) -> None:
        super().__init__()
        check_levels_alike(in_channels, anchors_per_cell)
        check_one_anchor(anchors_per_cell, "StarHead")
        self.num_columns, self.unit, self.star_gradient = num_columns, unit, star_gradient
        width = channels or in_channels[0]
        last = width if num_convs else in_channels[0]
        self.class_tower = conv_tower(in_channels[0], width, num_convs, norm)
        self.box_tower = conv_tower(in_channels[0], width, num_convs, norm)
        self.first_tower = conv_tower(last, width, 1, norm)
        self.first_out = nn.Conv2d(width, 4, 3, padding=1)
        self.refine_star = nn.Conv2d(last, width, 3, padding=1, bias=False)
        self.refine_out = nn.Conv2d(width, 4, 3, padding=1)
        self.class_star = nn.Conv2d(last, width, 3, padding=1, bias=False)
        self.scales = nn.Parameter(torch.ones(len(in_channels)))
        self.refine_scales = nn.Parameter(torch.ones(len(in_channels)))
        init = partial(nn.init.normal_, std=0.01)
        init_convs(self, init)
        # Last, so that no other weight depends on the loss's number of columns.
        self.class_out = nn.Conv2d(width, num_columns, 3, padding=1)
        init_convs(self.class_out, init)
        self.class_out.bias.data.copy_(class_bias)  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        logits, deltas, first = [], [], []
        for level, x in enumerate(features):
            classes, boxes = self.class_tower(x), self.box_tower(x)
            distances = positive(self.first_out(self.first_tower(boxes)), self.scales[level])
            offsets = star_offsets(self._damped(distances) * self.unit)
            seen, refined = (
                deform(of, offsets, star).relu() for of, star in ((classes, self.class_star), (boxes, self.refine_star))
            )
            factors = positive(self.refine_out(refined), self.refine_scales[level])
            logits.append(per_anchor(self.class_out(seen), self.num_columns))
            deltas.append(per_anchor(factors * distances.detach(), 4))
            first.append(per_anchor(distances, 4))
        return HeadOutputs(logits, deltas, None, first)

    def _damped(self, distances: Tensor) -> Tensor:
        """The same distances with a fraction of their gradient."""
        return distances.detach() * (1 - self.star_gradient) + distances * self.star_gradient


def positive(x: Tensor, scale: Tensor) -> Tensor:
    """exp(scale x), in float32 at least, whose range half precision lacks."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return (x * scale).clamp(max=LARGEST_EXPONENT).exp()


def star_offsets(distances: Tensor) -> Tensor:
    """Distances (B, 4, H, W) to the left, top, right and bottom edge, in cells -> (B, 18, H, W) offsets of 3x3 places.

    Offsets are (y, x) beside the regular grid, row by row, so that the places are the star of the box.
    """
    left, top, right, bottom = distances.unbind(dim=1)
    zero = torch.zeros_like(left)
    offsets = []
    for i, y in enumerate((-top, zero, bottom)):
        for j, x in enumerate((-left, zero, right)):
            offsets += [y - (i - 1), x - (j - 1)]
    return torch.stack(offsets, dim=1)
