"""As many anchors for an object as its best predictions overlap it: SimOTA (2107.08430) and RTMDet's (2212.07784)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner, label
from detkit.assigners.matching import lowest
from detkit.registry import ASSIGNERS, Fraction, NonNegative, Positive, PositiveInt
from detkit.structures import Assignment, Candidates, Targets

LEAST_IOU = 1e-7
"""Added to an IoU of which the logarithm is taken."""
FAR = 1e5
"""Cost of a point that is not in the object and near its centre as well, above all others."""
LEAST_LOG = -100.0
"""Smallest logarithm of a score, as in torch's cross-entropy."""


@dataclass
class Points:
    """n points, the middles of anchors, with strides (n,), predicted boxes (n, 4) and scores (n, K)."""

    at: Tensor
    strides: Tensor
    predicted: Tensor
    scores: Tensor

    def rows(self, rows: Tensor) -> Points:
        return Points(self.at[rows], self.strides[rows], self.predicted[rows], self.scores[rows])

    def inside(self, boxes: Tensor) -> Tensor:
        """(g, n) whether a point lies within each of the boxes (g, 4), not on its edge."""
        return ((self.at > boxes[:, None, :2]) & (self.at < boxes[:, None, 2:])).all(dim=-1)


class DynamicKAssigner(Assigner):
    """Matches an object to its k cheapest anchors, k being the sum of the greatest IoUs of predicted boxes with it.

    `offset`: shift of the points from the anchors' middles, in strides. A subclass says which points an object may
    have, and what each costs. A point that several objects take goes to the one that it costs least, of all objects.
    Anchors must be squares as wide as the stride. `Assignment.quality` is the IoU of the predicted box.
    """

    def __init__(self, topk: int, iou_weight: float, offset: float, ignore_overlap: float, chunk_elements: int) -> None:
        super().__init__(ignore_overlap=ignore_overlap, chunk_elements=chunk_elements)
        self.topk, self.iou_weight, self.offset = topk, iou_weight, offset

    def eligible(self, points: Points, boxes: Tensor) -> Tensor:
        """(g, n) whether an object of box (g, 4) may be matched to each point."""
        raise NotImplementedError

    def costs(self, points: Points, boxes: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
        """(g, n) costs, at least 0, beside that of the IoU (g, n); labels: (g,) classes of the objects."""
        raise NotImplementedError

    def scores(self, candidates: Candidates) -> Tensor:
        """(A, K) scores that `costs` gets."""
        return candidates.scores()

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        anchors, boxes = candidates.anchors, targets.boxes
        matched = torch.zeros_like(anchors[:, 0], dtype=torch.int64)
        positive, quality = torch.zeros_like(matched, dtype=torch.bool), torch.zeros_like(anchors[:, 0])
        if len(anchors) and len(boxes):
            strides = anchors[:, 2] - anchors[:, 0]
            at = box_ops.centres(anchors) + self.offset * strides[:, None]
            points = Points(at, strides, candidates.boxes(), self.scores(candidates).float())
            groups = torch.split(
                torch.arange(len(boxes), device=at.device), max(1, self.chunk_elements // len(anchors))
            )
            near = positive.clone()
            for group in groups:
                near |= self.eligible(points, boxes[group]).any(dim=0)
            if candidates.ignored is not None:
                near &= ~candidates.ignored
            rows = near.nonzero()[:, 0]
            if len(rows):
                points = points.rows(rows)
                claimed, found = self._match(points, targets, groups)
                positive[rows], matched[rows] = claimed, found
                quality[rows] = box_ops.paired_iou(points.predicted, boxes[found]).to(quality.dtype)
        return Assignment(label(positive, matched, targets), matched, quality)

    def _match(self, points: Points, targets: Targets, groups: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """(n,) whether a point is taken by an object, and (n,) which: that of least cost if there are several."""
        count = torch.zeros_like(points.strides, dtype=torch.int64)
        taker, cheapest, least = count.clone(), count.clone(), torch.full_like(points.strides, torch.inf)
        for group in groups:
            boxes = targets.boxes[group]
            iou = box_ops.pairwise_iou(boxes, points.predicted)
            cost = self.costs(points, boxes, targets.labels[group], iou)
            cost = cost - self.iou_weight * (iou + LEAST_IOU).log().clamp(max=0)
            best = iou.topk(min(self.topk, iou.shape[1]), dim=1).values
            number = best.sum(dim=1).long().clamp(min=1)
            taken = lowest(cost, min(self.topk, iou.shape[1]))
            rank = torch.arange(taken.shape[1], device=taken.device)
            objects, taken = group[:, None].expand_as(taken)[rank < number[:, None]], taken[rank < number[:, None]]
            count.scatter_add_(0, taken, torch.ones_like(taken))
            taker.scatter_reduce_(0, taken, objects, "amax")
            low, which = cost.min(dim=0)
            cheapest, least = torch.where(low < least, group[which], cheapest), torch.minimum(low, least)
        return count > 0, torch.where(count > 1, cheapest, taker)


@ASSIGNERS.register()
class SimOTAAssigner(DynamicKAssigner):
    """SimOTA: cross-entropy of the score plus the log of the IoU decides, within the object and near its centre.

    The score is that of class and quality together, of which the square root is taken as in the authors' code. Points
    in the box or near the centre may be matched, those that are not in both at a price that none in both has.
    A point that several objects take goes to the one that it costs least. `Assignment.quality` is the IoU.

    Source: 2107.08430, section 2.1 (Multi positives, SimOTA).

    Args:
        topk: predictions whose IoUs are summed to the number of an object's anchors.
        radius: largest distance from the centre, in strides, in x and in y.
        iou_weight: factor on minus the logarithm of the IoU.
        class_weight: factor on the cross-entropy of the scores.
        offset: shift of the points from the anchors' middles, in strides; 0.5 moves them from the cells' corners, from
            where YOLOX decodes boxes, to the cells' centres.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; the result does not depend
            on it.
    """

    def __init__(
        self,
        *,
        topk: PositiveInt = 10,
        radius: Positive = 2.5,
        iou_weight: NonNegative = 3.0,
        class_weight: NonNegative = 1.0,
        offset: Fraction = 0.5,
        ignore_overlap: Fraction = 0.5,
        chunk_elements: PositiveInt = 1_000_000,
    ) -> None:
        super().__init__(topk, iou_weight, offset, ignore_overlap, chunk_elements)
        self.radius, self.class_weight = radius, class_weight

    def scores(self, candidates: Candidates) -> Tensor:
        quality = candidates.quality().expand(len(candidates.anchors))
        return (candidates.scores() * quality[:, None]).sqrt()

    def _central(self, points: Points, boxes: Tensor) -> Tensor:
        """(g, n) whether a point is near the centre of each box (g, 4)."""
        middle, reach = box_ops.centres(boxes)[:, None], self.radius * points.strides[:, None]
        return ((points.at - middle).abs() < reach).all(dim=-1)

    def eligible(self, points: Points, boxes: Tensor) -> Tensor:
        return points.inside(boxes) | self._central(points, boxes)

    def costs(self, points: Points, boxes: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
        wrong = (1 - points.scores).log().clamp(min=LEAST_LOG).neg()
        right = points.scores[:, labels].T.log().clamp(min=LEAST_LOG).neg()
        entropy = (wrong.sum(dim=1) - wrong[:, labels].T).clamp(min=0) + right
        both = points.inside(boxes) & self._central(points, boxes)
        return self.class_weight * entropy + torch.where(both, 0.0, FAR)


@ASSIGNERS.register()
class DynamicSoftLabelAssigner(DynamicKAssigner):
    """RTMDet's assigner: quality focal loss of the score, log of the IoU and distance of the centre decide together.

    Points inside the object may be matched. The target score of a class is the IoU; the distance d in strides costs
    10^(d - radius). A point that several objects take goes to the one that it costs least. `Assignment.quality` is the
    IoU.

    Source: 2212.07784, section 3.3, equations 1 to 4.

    Args:
        topk: predictions whose IoUs are summed to the number of an object's anchors.
        radius: distance from the centre that costs 1, in strides.
        iou_weight: factor on minus the logarithm of the IoU.
        offset: shift of the points from the anchors' middles, in strides.
        ignore_overlap: an anchor with more than this fraction of its area in an ignore region (crowd, difficult) is
            neither positive nor negative.
        chunk_elements: most entries of an anchor-by-object matrix that is held at once; the result does not depend
            on it.
    """

    def __init__(
        self,
        *,
        topk: PositiveInt = 13,
        radius: NonNegative = 3.0,
        iou_weight: NonNegative = 3.0,
        offset: Fraction = 0.0,
        ignore_overlap: Fraction = 0.5,
        chunk_elements: PositiveInt = 1_000_000,
    ) -> None:
        super().__init__(topk, iou_weight, offset, ignore_overlap, chunk_elements)
        self.radius = radius

    def eligible(self, points: Points, boxes: Tensor) -> Tensor:
        return points.inside(boxes)

    def costs(self, points: Points, boxes: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
        wrong = (1 - points.scores).log().clamp(min=LEAST_LOG).neg() * points.scores.square()
        score = points.scores[:, labels].T
        right, missed = (s.log().clamp(min=LEAST_LOG).neg() for s in (score, 1 - score))
        soft = (iou * right + (1 - iou) * missed) * (iou - score).square()
        x, y = (points.at - box_ops.centres(boxes)[:, None]).unbind(dim=-1)
        distance = torch.hypot(x, y) / points.strides
        far = torch.pow(10.0, (distance - self.radius).clamp(max=30.0))
        return (wrong.sum(dim=1) - wrong[:, labels].T).clamp(min=0) + soft + far
