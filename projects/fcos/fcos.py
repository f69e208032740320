"""FCOS (1904.01355): a box from every point, without anchors, out of parts for detkit's slots.

A point is a cell of a level: an `OctaveAnchors` with one square anchor a cell, as wide as the stride, in the
cell's middle. So a part that needs the point or the stride reads them off the anchor, and the detector, the
data and the evaluation stay as they are. The centre-ness is one more column of the class logits, which the
class loss owns: it trains it and multiplies it into the scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.coders.base import BoxCoder
from detkit.heads.base import Head, per_anchor
from detkit.layers.norms import NormName, norm_layer
from detkit.losses.base import BoxLoss, ClassificationLoss
from detkit.ops import sigmoid_focal_sum
from detkit.registry import (
    ASSIGNERS,
    BOX_LOSSES,
    CLASS_LOSSES,
    CODERS,
    HEADS,
    Fraction,
    NonNegative,
    NonNegativeInt,
    OpenFraction,
    Positive,
)
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets


def points_and_strides(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors (..., 4), one square a cell -> their middles (..., 2), x and y in pixels, and sides (..., 1)."""
    return (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2:3] - anchors[..., 0:1]


def edge_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Points (..., 2) and boxes (..., 4), broadcast -> (..., 4) pixels to the left, top, right, bottom edge (eq. 1)."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def centreness(distances: Tensor) -> Tensor:
    """(..., 4) distances of points inside their boxes -> (...) 1 in the middle, falling to 0 at the edges (eq. 3)."""
    left, top, right, bottom = distances.clamp(min=0).unbind(-1)

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b) / torch.maximum(a, b).clamp(min=1e-6)

    return (ratio(left, right) * ratio(top, bottom)).sqrt()


@CODERS.register()
class PointCoder(BoxCoder):
    """The four distances from the point to the box's edges, in strides.

    A point outside its box has negative distances. `PointHead` predicts none, so no box turns inside out.
    """

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        points, strides = points_and_strides(anchors)
        return edge_distances(points, boxes) / strides

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        points, strides = points_and_strides(anchors)
        distances = deltas * strides
        return torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=-1)


@ASSIGNERS.register()
class PointAssigner(Assigner):
    """Matches a point to the smallest object whose middle it lies in and whose size is its level's.

    Points in an ignore region that match no object are ignored.

    Args:
        radius: largest distance of a point from the object's centre, in strides (the centre sampling that the authors
            added after the paper); null matches all points inside the box.
        reach: largest distance, in strides, from a point to the object's farthest edge, on any level but the
            coarsest; on any but the finest it must be more than half of that. 8 gives the paper's 64, 128, 256 and
            512 px for strides 8 to 64 (section 3.2).
    """

    def __init__(self, *, radius: Positive | None = 1.5, reach: Positive = 8.0) -> None:
        super().__init__(ignore_overlap=None)  # the point decides, not the area, see forward
        self.radius, self.reach = radius, reach

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        """Labels the points of one image; `quality` is the centre-ness of each positive."""
        points, strides = points_and_strides(candidates.anchors)
        labels = torch.full((len(points),), BACKGROUND, device=points.device)
        matched, quality = torch.zeros_like(labels), torch.zeros_like(strides[:, 0])
        if len(targets.boxes):
            lower, upper = self._reach_of_levels(strides[:, 0], candidates.level_sizes)
            # Object by object, so that memory does not grow with their number; the largest first, so that the
            # smallest overwrites it.
            order = box_ops.area(targets.boxes).argsort(descending=True)
            for i, box, label in zip(order, targets.boxes[order], targets.labels[order], strict=True):
                inside = self._points_of(box, points, strides, lower, upper)
                labels, matched = torch.where(inside, label, labels), torch.where(inside, i, matched)
            quality = centreness(edge_distances(points, targets.boxes[matched]))
        for region in targets.ignore:
            inside = (edge_distances(points, region) > 0).all(dim=1)
            labels = labels.masked_fill(inside & (labels == BACKGROUND), IGNORED)
        return Assignment(labels, matched, quality)

    def _reach_of_levels(self, strides: Tensor, level_sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(A,) smallest and (A,) largest distance of an object's farthest edge, in pixels, for each point."""
        lower, upper = strides * self.reach / 2, strides * self.reach
        lower[: level_sizes[0]] = 0
        upper[len(strides) - level_sizes[-1] :] = math.inf
        return lower, upper

    def _points_of(self, box: Tensor, points: Tensor, strides: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """(A,) bool, the points that an object of box (4,) may be matched to."""
        distances = edge_distances(points, box)
        farthest = distances.amax(dim=1)
        inside = (distances > 0).all(dim=1) & (farthest > lower) & (farthest <= upper)
        if self.radius is not None:
            centre = (box[:2] + box[2:]) / 2
            inside &= ((points - centre).abs() < self.radius * strides).all(dim=1)
        return inside


@CLASS_LOSSES.register()
class CenternessFocalLoss(ClassificationLoss):
    """Focal loss of the classes and cross-entropy of the centre-ness, which is one column more (section 3.3).

    The scores are the square root of their product, as in the authors' code: the order is the same, the values are
    easier to set a threshold by.

    Args:
        alpha: weight of positives in the focal loss; negatives get 1 - alpha.
        gamma: exponent that fades easy examples.
        prior: foreground probability that every anchor starts with.
        centerness_weight: factor on the centre-ness term.
        weight: factor on the sum.
    """

    uses_quality = True

    def __init__(
        self,
        *,
        alpha: Fraction = 0.25,
        gamma: NonNegative = 2.0,
        prior: OpenFraction = 0.01,
        centerness_weight: NonNegative = 1.0,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.prior = alpha, gamma, prior
        self.centerness_weight, self.weight = centerness_weight, weight

    def num_columns(self, num_classes: int) -> int:
        """K + 1: the classes and, last, the centre-ness."""
        return num_classes + 1

    def initial_bias(self, num_classes: int) -> Tensor:
        """(K + 1,) the logit of `prior` for the classes, 0 for the centre-ness."""
        bias = torch.full((num_classes + 1,), math.log(self.prior / (1 - self.prior)))
        bias[-1] = 0.0
        return bias

    def start_score(self, num_classes: int) -> float:
        """The scores contain the centre-ness, which starts at one half."""
        return math.sqrt(self.prior * 0.5)

    def scores(self, logits: Tensor) -> Tensor:
        """(..., K + 1) -> (..., K) square root of class probability times centre-ness."""
        return (logits[..., :-1].sigmoid() * logits[..., -1:].sigmoid()).sqrt()

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        assert quality is not None, "uses_quality"
        classes = sigmoid_focal_sum(logits[..., :-1], labels, self.alpha, self.gamma)
        positive = labels >= 0
        centre = F.binary_cross_entropy_with_logits(
            logits[..., -1].float()[positive], quality[positive], reduction="sum"
        )
        return self.weight * (classes + self.centerness_weight * centre)


@BOX_LOSSES.register()
class CenternessGIoULoss(BoxLoss):
    """Generalised IoU loss, each box weighted by its point's centre-ness (the authors' code, after section 4.3).

    The authors divide by the sum of the weights; here the trainer divides by the number of positives, as for
    every other loss, so that a batch may be split.

    Args:
        weight: factor on the sum; it can make up for that difference.
    """

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        from torchvision.ops import generalized_box_iou_loss

        points, _ = points_and_strides(anchors)
        predicted = coder.decode(deltas.to(anchors.dtype), anchors)
        cost: Tensor = generalized_box_iou_loss(predicted, boxes, reduction="none")
        return self.weight * (cost * centreness(edge_distances(points, boxes))).sum()


@HEADS.register()
class PointHead(Head):
    """Towers shared by all levels; classes from one, distances and centre-ness from the other (figure 2).

    Distances are exp(scale * x), with a trainable scale per level (section 3.2).

    Args:
        num_convs: convolutions per tower.
        norm: normalisation after every convolution of a tower.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        num_convs: NonNegativeInt = 4,
        norm: NormName = "gn",
    ) -> None:
        super().__init__()
        if len(set(in_channels)) != 1 or set(anchors_per_cell) != {1}:
            raise ValueError(
                f"PointHead needs levels of equal channels and one anchor per cell, not {in_channels} and "
                f"{anchors_per_cell}: set anchors.scales_per_octave to 1 and anchors.aspect_ratios to [1.0]"
            )
        width = in_channels[0]

        def tower() -> nn.Sequential:
            layers: list[nn.Module] = []
            for _ in range(num_convs):
                layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), norm_layer(norm)(width), nn.ReLU()]
            return nn.Sequential(*layers)

        self.class_tower, self.box_tower = tower(), tower()
        self.class_out = nn.Conv2d(width, num_columns - 1, 3, padding=1)
        self.centre_out = nn.Conv2d(width, 1, 3, padding=1)
        self.box_out = nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(in_channels)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.class_out.bias.data.copy_(class_bias[:-1])  # type: ignore[union-attr]
        self.centre_out.bias.data.copy_(class_bias[-1:])  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for x, scale in zip(features, self.scales, strict=True):
            box = self.box_tower(x)
            columns = torch.cat((self.class_out(self.class_tower(x)), self.centre_out(box)), dim=1)
            logits.append(per_anchor(columns, columns.shape[1]))
            # In float32, and not beyond e^8 strides: a wild prediction must not become infinite.
            deltas.append((scale * per_anchor(self.box_out(box), 4).float()).clamp(max=8).exp())
        return logits, deltas
