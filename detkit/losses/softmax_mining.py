"""Softmax cross-entropy with hard negative mining (1512.02325, section 2.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit.losses.base import ClassificationLoss
from detkit.losses.mining import hard_negatives
from detkit.losses.sigmoid import check_not_negative, check_shapes, to_float32
from detkit.registry import CLASS_LOSSES


@CLASS_LOSSES.register()
class SoftmaxMiningLoss(ClassificationLoss):
    """Cross-entropy over K classes and background, of the positives and the hardest background anchors.

    Column k is class k; the last column, K, is background (torchvision's column 0). ratio: background
    anchors taken a positive of the same image, those first that cost most. floor: taken from an image at
    least, so that one without objects teaches too; 0 gives the paper's and torchvision's choice, which
    learns nothing from it. prior: foreground probability that every anchor starts with; 0.25 is the share
    of positives among what a ratio of 3 takes. weight: factor on the sum.
    """

    def __init__(self, *, ratio: float = 3.0, floor: int = 10, prior: float = 0.25, weight: float = 1.0) -> None:
        super().__init__()
        check_not_negative(ratio=ratio, floor=floor, weight=weight)
        if not 0 < prior < 1:
            raise ValueError(f"prior: {prior} is not a probability between 0 and 1")
        self.ratio, self.floor, self.prior, self.weight = ratio, floor, prior, weight

    def num_columns(self, num_classes: int) -> int:
        """One column a class and, last, background."""
        return num_classes + 1

    def initial_bias(self, num_classes: int) -> Tensor:
        """(K + 1,) zeros, and for background what leaves `prior` to the K classes together."""
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(num_classes * (1 - self.prior) / self.prior)
        return bias

    def start_score(self, num_classes: int) -> float:
        """The K classes share `prior`."""
        return self.prior / num_classes

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax, without the background's share."""
        return logits.softmax(dim=-1)[..., :-1]

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        check_shapes(logits, labels)
        wide = to_float32(logits)
        positive = labels >= 0
        target = torch.where(positive, labels, logits.shape[-1] - 1)
        costs = wide.logsumexp(dim=-1) - wide.gather(-1, target[..., None])[..., 0]
        taken = positive | hard_negatives(costs, labels, self.ratio, self.floor)
        return self.weight * costs.masked_fill(~taken, 0.0).sum()
