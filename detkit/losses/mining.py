"""Losses of the hardest anchors: hard negative mining (1512.02325, section 2.2) and OHEM (1604.03540, section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.base import ClassificationLoss
from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, NonNegative, NonNegativeInt, OpenFraction, PositiveInt
from detkit.structures import BACKGROUND, IGNORED


@CLASS_LOSSES.register()
class BCEMiningLoss(SigmoidLoss):
    """Binary cross-entropy of the positives and of each image's hardest background anchors (1512.02325, section 2.2).

    Hardest are those whose cross-entropy as background, summed over the classes, is greatest.

    Args:
        ratio: background anchors per positive of the image.
        floor: least number of background anchors per image, so that images without objects contribute too.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        ratio: NonNegative = 3.0,
        floor: NonNegativeInt = 10,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.ratio, self.floor = ratio, floor

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        used = (labels >= 0) | hard_negatives(background_costs(logits), labels, self.ratio, self.floor)
        return self.weight * sigmoid_focal_sum(logits, torch.where(used, labels, IGNORED), None, 0.0)


@CLASS_LOSSES.register()
class OHEMLoss(SigmoidLoss):
    """Binary cross-entropy of the hardest anchors of each image, positive or not (1604.03540, section 4.1).

    Easy positives are dropped too, unlike in `BCEMiningLoss`. The paper thins anchors by suppression before the
    choice; a class loss has no boxes, so that is left out.

    Args:
        count: anchors per image; all of them if it has fewer. 128 is the paper's batch (two images there) and the best
            of 1708.02002, table 1d.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(self, *, count: PositiveInt = 128, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        self.count = count

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        costs = anchor_costs(logits, labels)
        hardest = torch.zeros_like(labels, dtype=torch.bool)
        hardest.scatter_(1, costs.topk(min(self.count, labels.shape[1]), dim=1).indices, True)
        return self.weight * sigmoid_focal_sum(logits, torch.where(hardest, labels, IGNORED), None, 0.0)


def anchor_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, A) binary cross-entropy of each anchor, minus infinity where it is ignored, without graph."""
    costs = background_costs(logits)
    if logits.shape[-1]:
        class_logits = logits.detach().gather(-1, labels.clamp(min=0)[..., None])[..., 0].to(costs.dtype)
        costs = torch.where(labels >= 0, costs - class_logits, costs)
    return costs.masked_fill(labels == IGNORED, -torch.inf)


@CLASS_LOSSES.register()
class SoftmaxMiningLoss(ClassificationLoss):
    """Cross-entropy over K classes and background, of the positives and the hardest background anchors.

    Column k is class k; the last column, K, is background (torchvision's column 0).

    Source: 1512.02325, section 2.2.

    Args:
        ratio: background anchors per positive of the image, hardest first.
        floor: least number of background anchors per image, so that images without objects contribute too; 0 is the
            paper's and torchvision's choice.
        prior: foreground probability that every anchor starts with; 0.25 is the fraction of positives among the
            anchors that a ratio of 3 uses.
        weight: factor on the sum.
    """

    columns_apart = False

    def __init__(
        self,
        *,
        ratio: NonNegative = 3.0,
        floor: NonNegativeInt = 10,
        prior: OpenFraction = 0.25,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.ratio, self.floor, self.prior, self.weight = ratio, floor, prior, weight

    def num_columns(self, num_classes: int) -> int:
        """K + 1: the classes and, last, background."""
        return num_classes + 1

    def initial_bias(self, num_classes: int) -> Tensor:
        """(K + 1,) zeros, and for background what gives the K classes together the probability `prior`."""
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(num_classes * (1 - self.prior) / self.prior)
        return bias

    def start_score(self, num_classes: int) -> float:
        """`prior`, divided among the K classes."""
        return self.prior / num_classes

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax, without the background column."""
        return logits.softmax(dim=-1)[..., :-1]

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        wide = to_float32(logits)
        positive = labels >= 0
        target = torch.where(positive, labels, logits.shape[-1] - 1)
        costs = wide.logsumexp(dim=-1) - wide.gather(-1, target[..., None])[..., 0]
        used = positive | hard_negatives(costs, labels, self.ratio, self.floor)
        return self.weight * costs.masked_fill(~used, 0.0).sum()


def hard_negatives(costs: Tensor, labels: Tensor, ratio: float, floor: int) -> Tensor:
    """(B, A) bool, the hardest background anchors of each image.

    costs: (B, A), the loss of each anchor as background. labels: (B, A) (class, BACKGROUND or IGNORED). Of an
    image with P positives, `ratio * P` (rounded up) are chosen, at least `floor` and at most all of its background
    anchors. Of equal costs the earlier anchor goes first. No gradient goes through the choice, and nothing is
    copied to the host.
    """
    if costs.shape != labels.shape:
        raise ValueError(f"costs {tuple(costs.shape)} do not fit labels {tuple(labels.shape)}")
    background = labels == BACKGROUND
    wanted = ((labels >= 0).sum(dim=1, keepdim=True) * ratio).clamp(min=floor)
    order = costs.detach().masked_fill(~background, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(labels.shape[1], device=labels.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, ranks)
    return background & (rank < wanted)


def background_costs(logits: Tensor) -> Tensor:
    """Logits (B, A, C) -> (B, A), binary cross-entropy of each anchor as background, without graph."""
    return F.softplus(to_float32(logits.detach())).sum(dim=-1)
