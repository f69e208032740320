"""Softmax cross-entropy with hard negative mining (1512.02325, section 2.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit.losses.base import ClassificationLoss
from detkit.losses.mining import hard_negatives
from detkit.losses.sigmoid import check_shapes, to_float32
from detkit.registry import CLASS_LOSSES, NonNegative, NonNegativeInt, OpenFraction


@CLASS_LOSSES.register()
class SoftmaxMiningLoss(ClassificationLoss):
    """Cross-entropy over K classes and background, of the positives and the hardest background anchors.

    Column k is class k; the last column, K, is background (torchvision's column 0).

    Args:
        ratio: background anchors per positive of the image, hardest first.
        floor: least number of background anchors per image, so that images without objects contribute too; 0 is the
            paper's and torchvision's choice.
        prior: foreground probability that every anchor starts with; 0.25 is the fraction of positives among the
            anchors that a ratio of 3 uses.
        weight: factor on the sum.
    """

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
