"""Assignment of points by the size of objects (FCOS, 1904.01355, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, Positive
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


@ASSIGNERS.register()
class PointAssigner(Assigner):
    """Matches a point, the middle of an anchor, to the smallest object that it lies in and whose size is its level's.

    A level takes objects whose farthest edge is within its reach. Points in an ignore region that match no object are
    ignored. Anchors must be squares, one a cell, as wide as the stride.

    Source: 1904.01355, section 3.2.

    Args:
        radius: largest distance of a point from the object's centre, in strides, in x and in y (the centre sampling
            that the authors added after the paper); null matches all points inside the box.
        reach: largest distance, in strides, from a point to the object's farthest edge, on any level but the
            coarsest; on any but the finest it must be at least half of that. 8 gives the paper's 64, 128, 256 and
            512 px for strides 8 to 64.
    """

    def __init__(self, *, radius: Positive | None = 1.5, reach: Positive = 8.0) -> None:
        super().__init__(ignore_overlap=None)  # the point decides, not the area, see forward
        self.radius, self.reach = radius, reach

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        points, strides = box_ops.centres(candidates.anchors), candidates.anchors[:, 2] - candidates.anchors[:, 0]
        labels = torch.full((len(points),), BACKGROUND, device=points.device)
        matched = torch.zeros_like(labels)
        lower, upper = self._reach_of_levels(strides, candidates.level_sizes)
        # Object by object, so that memory does not grow with their number; the largest first, so that the
        # smallest overwrites it, and of equals the first.
        order = box_ops.area(targets.boxes).flip(0).argsort(descending=True, stable=True)
        for i in len(targets.boxes) - 1 - order:
            inside = self._points_of(targets.boxes[i], points, strides, lower, upper)
            labels, matched = torch.where(inside, targets.labels[i], labels), torch.where(inside, i, matched)
        for region in targets.ignore:
            inside = (box_ops.edge_distances(points, region) > 0).all(dim=1)
            labels = labels.masked_fill(inside & (labels == BACKGROUND), IGNORED)
        return Assignment(labels, matched)

    def _reach_of_levels(self, strides: Tensor, level_sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(A,) smallest and (A,) largest distance of an object's farthest edge, in pixels, for each point."""
        lower, upper = strides * self.reach / 2, strides * self.reach
        lower[: level_sizes[0]] = 0
        upper[len(strides) - level_sizes[-1] :] = math.inf
        return lower, upper

    def _points_of(self, box: Tensor, points: Tensor, strides: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """(A,) bool, the points that an object of box (4,) may be matched to."""
        distances = box_ops.edge_distances(points, box)
        farthest = distances.amax(dim=1)
        inside = (distances > 0).all(dim=1) & (farthest >= lower) & (farthest <= upper)
        if self.radius is not None:
            inside &= ((points - box_ops.centres(box)).abs() < self.radius * strides[:, None]).all(dim=1)
        return inside
