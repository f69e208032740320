"""Assignment of the middle of objects: FoveaBox (1904.03797, section 3.2) and FSAF (1903.00621, section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, Fraction, NonNegative, Positive
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


@ASSIGNERS.register()
class CentralRegionAssigner(Assigner):
    """Matches the points in the middle part of an object, on the levels that take its size.

    A point is the middle of an anchor; of several objects it gets the smallest. The size of an object is the root of
    its area; an object may belong to several levels. Points in an ignore region that match no object are ignored.
    Anchors must be squares, one a cell, as wide as the stride.

    Source: 1904.03797, section 3.2; with `smallest: 0`, `largest: null` and `touch: true` the effective boxes of
    1903.00621, section 3.1.

    Args:
        region: side of the middle part over that of the object.
        smallest: size from which a level takes objects, in its strides; the finest takes smaller ones, too.
        largest: size up to which a level takes objects, in its strides; the coarsest takes larger ones, too. null:
            there is none.
        touch: match every anchor that overlaps the middle part, so that no object is without one on a level.
    """

    def __init__(
        self,
        *,
        region: Fraction = 0.4,
        smallest: NonNegative = 2.0,
        largest: Positive | None = 8.0,
        touch: bool = False,
    ) -> None:
        super().__init__(ignore_overlap=None)  # the point decides, not the area, see forward
        if largest is not None and largest < smallest:
            raise ValueError(f"largest: {largest} must not be less than smallest: {smallest}")
        self.region, self.smallest, self.largest, self.touch = region, smallest, largest, touch

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        anchors = candidates.anchors
        points = box_ops.centres(anchors)
        labels = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
        matched = torch.zeros_like(labels)
        lower, upper = self._sizes(anchors[:, 2] - anchors[:, 0], candidates.level_sizes)
        # Object by object, the largest first, so that the smallest overwrites it, and of equals the first.
        area = box_ops.area(targets.boxes)
        for i in len(area) - 1 - area.flip(0).argsort(descending=True, stable=True):
            size, half = area[i].sqrt(), self.region / 2 * box_ops.sides(targets.boxes[i])
            middle = box_ops.centres(targets.boxes[i])
            inside = (size >= lower) & (size <= upper) & self._in_region(points, anchors, middle, half)
            labels, matched = torch.where(inside, targets.labels[i], labels), torch.where(inside, i, matched)
        for region in targets.ignore:
            inside = (box_ops.edge_distances(points, region) > 0).all(dim=1)
            labels = labels.masked_fill(inside & (labels == BACKGROUND), IGNORED)
        return Assignment(labels, matched)

    def _sizes(self, strides: Tensor, level_sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(A,) smallest and (A,) largest size of an object in pixels, for each point."""
        lower = strides * self.smallest
        upper = torch.full_like(strides, math.inf) if self.largest is None else strides * self.largest
        lower[: level_sizes[0]] = 0
        upper[len(strides) - level_sizes[-1] :] = math.inf
        return lower, upper

    def _in_region(self, points: Tensor, anchors: Tensor, middle: Tensor, half: Tensor) -> Tensor:
        """(A,) whether the point, or any part of the anchor, lies in the region of half sides (2,) around `middle`."""
        if self.touch:
            return ((anchors[:, :2] < middle + half) & (anchors[:, 2:] > middle - half)).all(dim=1)
        return ((points - middle).abs() <= half).all(dim=1)
