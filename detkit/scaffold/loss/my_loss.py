"""A classification loss: what a wrong class costs, and how logits become scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.base import ClassificationLoss
from detkit.registry import CLASS_LOSSES, NonNegative, OpenFraction
from detkit.structures import IGNORED


@CLASS_LOSSES.register()
class MyLoss(ClassificationLoss):
    """Sigmoid cross-entropy weighted by (error)^gamma, so that easy examples count little.

    Args:
        gamma: exponent, 0 or at least 1; 0 gives plain cross-entropy.
        prior: score of every class at the start of the training.
        weight: factor on the sum.
    """

    # The arguments are the keys of the config. Their types say the bounds.
    def __init__(self, *, gamma: NonNegative = 2.0, prior: OpenFraction = 0.01, weight: NonNegative = 1.0) -> None:
        super().__init__()
        # What no type can say is checked here: an error that begins with the key is shown at its line of the config.
        if 0 < gamma < 1:
            raise ValueError(f"gamma: {gamma} must be 0 or at least 1")
        self.gamma, self.prior, self.weight = gamma, prior, weight

    def num_columns(self, num_classes: int) -> int:
        """Columns of the head, one per class. A softmax needs one more, for the background."""
        return num_classes

    def initial_bias(self, num_classes: int) -> Tensor:
        """(columns,) initial bias of the head: here the logit of `prior`."""
        return torch.full((num_classes,), math.log(self.prior / (1 - self.prior)))

    def scores(self, logits: Tensor) -> Tensor:
        """(..., columns) logits -> (..., classes) scores between 0 and 1."""
        return logits.sigmoid()

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Logits (B, A, columns), labels (B, A): a class, BACKGROUND (-1) or IGNORED (-2) -> the sum, a scalar."""
        # A sum, never a mean: detkit divides once, by the positives of the global batch.
        logits = logits.float()  # also where the network computes in half precision
        target = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * (labels >= 0)[..., None]
        used = (labels != IGNORED)[..., None]

        # Change from here: the cost of every logit.
        cost = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
        error = (target - logits.sigmoid()).abs()
        return self.weight * (error**self.gamma * cost * used).sum()
