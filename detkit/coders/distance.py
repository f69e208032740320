"""Boxes as distances from the anchor's middle to their four edges (1904.01355, section 3.1; 2006.04388)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.registry import CODERS, Positive

LARGEST_EXPONENT = 12.0
"""exp of it is more than any image has pixels; beyond it a wild prediction would become infinite."""
SMALLEST = 1e-6
"""Distance in units below which a logarithm is not taken."""


class PointCoder(BoxCoder):
    """Distances in units of `scale` sides of the anchor, or of `scale` pixels.

    A point detector has one square anchor a cell, whose middle is the point.
    """

    def __init__(self, unit: Literal["side", "pixels"], scale: float) -> None:
        super().__init__()
        self.unit, self.scale = unit, scale

    def unit_of(self, anchors: Tensor) -> Tensor:
        """Anchors (..., 4) -> (..., 1) pixels in a unit."""
        side = anchors[..., 2:3] - anchors[..., 0:1]
        return side * self.scale if self.unit == "side" else torch.full_like(side, self.scale)

    def distances(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes and anchors (..., 4) -> (..., 4) distances to the left, top, right and bottom edge, in units."""
        return box_ops.edge_distances(box_ops.centres(anchors), boxes) / self.unit_of(anchors)

    def boxes_at(self, distances: Tensor, anchors: Tensor) -> Tensor:
        """The inverse of `distances`."""
        points, pixels = box_ops.centres(anchors), distances * self.unit_of(anchors)
        return torch.cat((points - pixels[..., :2], points + pixels[..., 2:]), dim=-1)


@CODERS.register()
class DistanceCoder(PointCoder):
    """The four distances from the anchor's middle to the box's edges (FCOS, 1904.01355, section 3.1).

    Args:
        link: what makes distances of columns: `exp`, `relu`, or `linear` where the head has made them positive.
        unit: `side`: distances are in sides of the anchor; `pixels`.
        scale: sides or pixels in a unit, 0.125 for strides where anchors have a side of 8 strides.
    """

    def __init__(
        self,
        *,
        link: Literal["exp", "relu", "linear"] = "linear",
        unit: Literal["side", "pixels"] = "side",
        scale: Positive = 1.0,
    ) -> None:
        super().__init__(unit, scale)
        self.link, self.needs_inside = link, link != "linear"

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        distances = self.distances(boxes, anchors)
        return distances.clamp(min=SMALLEST).log() if self.link == "exp" else distances

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        if self.link == "exp":
            deltas = deltas.clamp(max=LARGEST_EXPONENT).exp()
        return self.boxes_at(deltas.relu() if self.link == "relu" else deltas, anchors)


@CODERS.register()
class DistributionCoder(PointCoder):
    """Each distance is the expectation of a distribution over 0 .. `bins` units (GFL, 2006.04388, equations 4 and 5).

    The columns are the logits of `bins` + 1 values for the left, the top, the right and the bottom edge.

    Args:
        bins: greatest distance, in units.
        unit: `side`: distances are in sides of the anchor; `pixels`.
        scale: sides or pixels in a unit; 0.125 makes units of strides where anchors have a side of 8 strides.
    """

    def __init__(
        self,
        *,
        bins: Annotated[int, Interval(ge=1, le=256)] = 16,
        unit: Literal["side", "pixels"] = "side",
        scale: Positive = 0.125,
    ) -> None:
        super().__init__(unit, scale)
        self.bins, self.num_columns, self.needs_inside = bins, 4 * (bins + 1), True

    def logits(self, deltas: Tensor) -> Tensor:
        """Columns (..., 4 (bins + 1)) -> (..., 4, bins + 1)."""
        return deltas.reshape(*deltas.shape[:-1], 4, self.bins + 1)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes and anchors (N, 4) -> (N, 4) distances in units, that the distributions should expect."""
        return self.distances(boxes, anchors)

    def columns(self, encoded: Tensor) -> Tensor:
        """The logits of distributions over the two values around each distance; those beyond `bins` become `bins`."""
        values = torch.arange(self.bins + 1, dtype=encoded.dtype, device=encoded.device)
        near = 1 - (encoded[..., None].clamp(0, self.bins) - values).abs()
        return near.clamp(min=1e-12).log().flatten(-2)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        values = torch.arange(self.bins + 1, dtype=deltas.dtype, device=deltas.device)
        return self.boxes_at((self.logits(deltas).softmax(dim=-1) * values).sum(dim=-1), anchors)
