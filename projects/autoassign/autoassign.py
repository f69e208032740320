"""AutoAssign (2007.03496): what is positive, on which level, and how much, is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import JointLoss, Normalizer
from detkit.losses.normalizers import PositiveCount
from detkit.losses.sigmoid import to_float32
from detkit.registry import CLASS_LOSSES, NonNegative, OpenFraction, Positive, PositiveInt
from detkit.structures import Losses, Predictions, Targets

POSITIVE, NEGATIVE, CENTRE = "positive", "negative", "centre"
OBJECTS, PRIOR, IMAGES = "objects", "prior", "images"
TINY = 1e-12


@CLASS_LOSSES.register()
class AutoAssignLoss(JointLoss):
    """Every point in an object is a positive and a negative of it, with weights that are learned (2007.03496).

    The last column of the head is the implicit objectness: a score is the class's sigmoid times its sigmoid. How likely
    points are by their place alone is a Gaussian of the distance to the object's centre, with a mean and a deviation
    of each class that are learned (equation 4).

    Args:
        classes: number of classes, each with a centre prior of its own.
        box_weight: factor on the GIoU loss in the exponent of a point's likelihood.
        sharpness: factor on the likelihood in the exponent of its weight, 1 / tau of equation 5.
        gamma: exponent that fades easy background.
        positive_weight: factor on the positive term.
        negative_weight: factor on the negative term.
        centre_weight: factor on the term that keeps the centre priors from vanishing (not in the paper; MMDetection's).
        prior: class probability that every point starts with.
    """

    def __init__(
        self,
        *,
        classes: PositiveInt,
        box_weight: Positive = 5.0,
        sharpness: Positive = 3.0,
        gamma: NonNegative = 2.0,
        positive_weight: NonNegative = 0.25,
        negative_weight: NonNegative = 0.75,
        centre_weight: NonNegative = 0.75,
        prior: OpenFraction = 0.02,
    ) -> None:
        super().__init__()
        self.box_weight, self.sharpness, self.gamma, self.prior = box_weight, sharpness, gamma, prior
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.centre_weight = centre_weight
        self.mean, self.deviation = nn.Parameter(torch.zeros(classes, 2)), nn.Parameter(torch.ones(classes, 2))

    def num_columns(self, num_classes: int) -> int:
        """K + 1: the classes and, last, the implicit objectness. ValueError if `classes` is not K."""
        if num_classes != len(self.mean):
            raise ValueError(
                f"losses.classification.classes: {len(self.mean)}, but the data has {num_classes}: set {num_classes}"
            )
        return num_classes + 1

    def initial_bias(self, num_classes: int) -> Tensor:
        return torch.tensor([math.log(self.prior / (1 - self.prior))] * num_classes + [0.0])

    def start_score(self, num_classes: int) -> float:
        """The prior times the objectness of 1/2."""
        return self.prior / 2

    def scores(self, logits: Tensor) -> Tensor:
        """Each class's sigmoid times that of the implicit objectness."""
        return logits[..., :-1].sigmoid() * logits[..., -1:].sigmoid()

    def divisors(self) -> Mapping[str, Normalizer]:
        return {OBJECTS: PositiveCount(), PRIOR: PositiveCount(), IMAGES: PositiveCount()}

    def joint_losses(self, pred: Predictions, targets: list[Targets], coder: BoxCoder) -> Losses:
        # Zeros, connected with all outputs of the head and all parameters whatever the images show.
        nothing = to_float32(pred.deltas[:, :0].sum() + pred.logits[:, :0].sum())
        terms = {POSITIVE: nothing, NEGATIVE: nothing, CENTRE: 0 * (self.mean.sum() + self.deviation.sum())}
        mass = nothing.detach().double()
        for image, target in enumerate(targets):
            scores = self.scores(to_float32(pred.logits[image]))
            points, objects = self.inside(pred.anchors, target)
            prior = self.centre_prior(pred.anchors[points], target.boxes[objects], target.labels[objects])
            boxes = coder.decode(to_float32(pred.deltas[image][points]), pred.anchors[points])
            true, labels = target.boxes[objects], target.labels[objects]
            likelihood = scores[points, labels] * self.box_likelihood(boxes, true)
            terms[POSITIVE] = terms[POSITIVE] + self.positive_costs(likelihood, prior, objects).sum()
            weights = self.background_weights(boxes.detach(), true, points, objects, labels, scores.shape)
            terms[NEGATIVE] = terms[NEGATIVE] + self.negative_costs(scores, weights).sum()
            if len(points):
                terms[CENTRE] = terms[CENTRE] + len(target.labels) / prior.sum().clamp(min=TINY)
            mass = mass + prior.detach().double().sum()
        factors = {POSITIVE: self.positive_weight, NEGATIVE: self.negative_weight, CENTRE: self.centre_weight}
        counts = {OBJECTS: sum(len(t.labels) for t in targets), PRIOR: mass, IMAGES: len(targets)}
        return Losses(
            {name: factors[name] * term for name, term in terms.items()},
            {name: torch.as_tensor(count, dtype=torch.float64, device=mass.device) for name, count in counts.items()},
            {NEGATIVE: PRIOR, CENTRE: IMAGES},
        )

    def inside(self, anchors: Tensor, target: Targets) -> tuple[Tensor, Tensor]:
        """Points and objects (P,) of all pairs of a point that lies in an object."""
        points = box_ops.centres(anchors)[:, None]
        lie = (box_ops.edge_distances(points, target.boxes[None]) > 0).all(dim=-1)
        rows, objects = lie.nonzero(as_tuple=True)
        return rows, objects

    def centre_prior(self, anchors: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(P,) weight of each pair by its place alone, equation 4; distances are in strides."""
        strides = anchors[:, 2:3] - anchors[:, :1]
        distance = (box_ops.centres(anchors) - box_ops.centres(boxes)) / strides - self.mean[labels]
        return (-(distance**2) / (2 * self.deviation[labels] ** 2)).exp().prod(dim=1)

    def box_likelihood(self, boxes: Tensor, true: Tensor) -> Tensor:
        """(P,) likelihood of predicted boxes, exp(-lambda GIoU loss)."""
        cost: Tensor = generalized_box_iou_loss(boxes, true, reduction="none")
        return (-self.box_weight * cost).exp()

    def positive_costs(self, likelihood: Tensor, prior: Tensor, objects: Tensor) -> Tensor:
        """Likelihood, prior and object (P,) of each pair -> cost of each object that has a point, equation 6."""
        weights = (self.sharpness * likelihood).exp() * prior
        nothing = weights.new_zeros(int(objects.max()) + 1 if len(objects) else 0)
        total = nothing.index_add(0, objects, weights).clamp(min=TINY)
        found = nothing.index_add(0, objects, weights / total[objects] * likelihood)
        found = found[torch.bincount(objects) > 0]
        return F.binary_cross_entropy(found.clamp(max=1), torch.ones_like(found), reduction="none")

    @torch.no_grad()
    def background_weights(
        self, boxes: Tensor, true: Tensor, points: Tensor, objects: Tensor, labels: Tensor, shape: torch.Size
    ) -> Tensor:
        """(A, K) how much each score counts as background: 1 outside, 1 - f(IoU) for the class of an object.

        f is 1 / (1 - IoU), stretched to 0 .. 1 over the points of the object (equation 7).
        """
        steep = 1 / (1 - box_ops.paired_iou(boxes, true)).clamp(min=TINY)
        ends = []
        for rule in ("amin", "amax"):
            start = steep.new_zeros(int(objects.max()) + 1 if len(objects) else 0)
            ends.append(start.scatter_reduce_(0, objects, steep, rule, include_self=False)[objects])
        lowest, highest = ends
        share = (steep - lowest + TINY) / (highest - lowest + TINY)
        weights = torch.ones(shape, device=steep.device).flatten()
        weights.scatter_reduce_(0, points * shape[1] + labels, 1 - share, "amin")
        return weights.view(shape)

    def negative_costs(self, scores: Tensor, weights: Tensor) -> Tensor:
        """Scores and weights (A, K) -> (A, K) focal cost of what is taken for an object and is none."""
        wrong = (scores * weights).clamp(max=1)
        return wrong**self.gamma * F.binary_cross_entropy(wrong, torch.zeros_like(wrong), reduction="none")
