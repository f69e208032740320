"""FreeAnchor (1909.02466): the anchors of an object are chosen by learning, as a likelihood of its bag."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import JointLoss, Normalizer
from detkit.losses.normalizers import PositiveCount
from detkit.losses.sigmoid import SigmoidLoss, to_float32
from detkit.registry import CLASS_LOSSES, Fraction, FractionBelowOne, NonNegative, OpenFraction, Positive, PositiveInt
from detkit.structures import Losses, Predictions, Targets

POSITIVE, NEGATIVE = "positive_bag", "negative_bag"
OBJECTS, ANCHORS = "objects", "anchors"
TINY = 1e-12


@CLASS_LOSSES.register()
class FreeAnchorLoss(JointLoss, SigmoidLoss):
    """Likelihood that some anchor of every object finds it, and that the others are background (1909.02466, eq. 5).

    The bag of an object are the anchors of highest IoU with it. The likelihood of each is its class score times
    exp(-box loss); of the bag it is their mean, weighted by 1 / (1 - likelihood), which moves from the mean to the
    maximum as the training goes on. The box loss is SmoothL1 of encoded deltas.

    Args:
        bag: anchors of an object.
        background_iou: IoU of the predicted box up to which an anchor is background with certainty.
        alpha: weight of the positive term; the negative one gets 1 - alpha.
        gamma: exponent that fades easy background.
        beta: difference of deltas below which the box loss is quadratic.
        box_weight: factor on the box loss in the exponent.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sums.
    """

    def __init__(
        self,
        *,
        bag: PositiveInt = 50,
        background_iou: FractionBelowOne = 0.6,
        alpha: Fraction = 0.5,
        gamma: NonNegative = 2.0,
        beta: Positive = 0.11,
        box_weight: Positive = 0.75,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.bag, self.background_iou, self.alpha, self.gamma = bag, background_iou, alpha, gamma
        self.beta, self.box_weight = beta, box_weight

    def divisors(self) -> Mapping[str, Normalizer]:
        return {OBJECTS: PositiveCount(), ANCHORS: PositiveCount()}

    def joint_losses(self, pred: Predictions, targets: list[Targets], coder: BoxCoder) -> Losses:
        # Zero, and connected with all outputs of the head whatever the images show.
        positive = negative = to_float32(pred.deltas[:, :0].sum() + pred.logits[:, :0].sum())
        for image, target in enumerate(targets):
            scores, deltas = to_float32(pred.logits[image]).sigmoid(), to_float32(pred.deltas[image])
            positive = positive + self.bag_costs(scores, deltas, pred.anchors, target, coder).sum()
            objectness = self.objectness(deltas.detach(), pred.anchors, target, coder, scores.shape[1])
            negative = negative + self.background_costs(scores, objectness).sum()
        objects = pred.anchors.new_tensor(sum(map(len, (t.labels for t in targets))))
        return Losses(
            {POSITIVE: self.weight * self.alpha * positive, NEGATIVE: self.weight * (1 - self.alpha) * negative},
            {OBJECTS: objects, ANCHORS: objects * self.bag},
            {NEGATIVE: ANCHORS},
        )

    def bag_costs(self, scores: Tensor, deltas: Tensor, anchors: Tensor, target: Targets, coder: BoxCoder) -> Tensor:
        """Scores (A, K) and deltas (A, 4) of an image -> (G,) cost of each object, equation 7."""
        size = min(self.bag, len(anchors))
        rows = box_ops.pairwise_iou(target.boxes, anchors).topk(size, dim=1).indices
        encoded = coder.encode(target.boxes[:, None].expand(-1, size, -1), anchors[rows])
        costs = F.smooth_l1_loss(deltas[rows], encoded, reduction="none", beta=self.beta).sum(dim=-1)
        found = scores[rows, target.labels[:, None]] * (-self.box_weight * costs).exp()
        weights = 1 / (1 - found).clamp(min=TINY)
        likelihood = (weights / weights.sum(dim=1, keepdim=True) * found).sum(dim=1)
        return F.binary_cross_entropy(likelihood, torch.ones_like(likelihood), reduction="none")

    @torch.no_grad()
    def objectness(self, deltas: Tensor, anchors: Tensor, target: Targets, coder: BoxCoder, classes: int) -> Tensor:
        """(A, K) probability that a predicted box finds an object of a class, equation 8 ff.: a saturated line of its
        IoU, from `background_iou` to the best IoU of the object."""
        found = deltas.new_zeros(classes, len(anchors))
        if not len(target.labels):
            return found.t()
        overlap = box_ops.pairwise_iou(target.boxes, coder.decode(deltas, anchors))
        best = overlap.amax(dim=1, keepdim=True).clamp(min=self.background_iou + TINY)
        share = ((overlap - self.background_iou) / (best - self.background_iou)).clamp(0, 1)
        return found.scatter_reduce_(0, target.labels[:, None].expand_as(share), share, "amax").t()

    def background_costs(self, scores: Tensor, objectness: Tensor) -> Tensor:
        """Scores and objectness (A, K) -> (A, K) focal cost of what is taken for an object and is none, equation 6."""
        wrong = (scores * (1 - objectness)).clamp(TINY, 1 - TINY)
        return wrong**self.gamma * F.binary_cross_entropy(wrong, torch.zeros_like(wrong), reduction="none")
