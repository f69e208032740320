"""Seesaw loss for long tails (2008.10032)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit.losses.base import ClassificationLoss
from detkit.losses.sigmoid import check_shapes, to_float32
from detkit.ops import sigmoid_focal_sum
from detkit.registry import CLASS_LOSSES, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class SeesawLoss(ClassificationLoss):
    """Softmax over the classes, in which frequent classes press less on rare ones, and a sigmoid for object or not.

    Column k is class k; the last column, K, is the objectness, which learns by cross-entropy over all anchors. The
    classes learn at positives alone: the loss is -ln(e^z_i / sum_j S_ij e^z_j) for class i, S_ij = M_ij C_ij, with
    mitigation M_ij = min(1, N_j / N_i)^p by the numbers N of positives so far, and compensation
    C_ij = max(1, s_j / s_i)^q by the scores s, which gives a class back what a wrong prediction would have lost.
    With p = q = 0 it is softmax cross-entropy. S is a constant to the gradient. The score is softmax times objectness.

    The numbers N are those before the step, are added up once per step over all ranks, and are part of the checkpoint;
    so the sum over a batch is that over its images.

    Source: 2008.10032, section 3.

    Args:
        p: power of the mitigation.
        q: power of the compensation.
        prior: foreground probability that every anchor starts with, divided among the classes.
        weight: factor on the sum.
    """

    columns_apart = False
    counts: Tensor

    def __init__(
        self, *, p: NonNegative = 0.8, q: NonNegative = 2.0, prior: OpenFraction = 0.01, weight: NonNegative = 1.0
    ) -> None:
        super().__init__()
        self.p, self.q, self.prior, self.weight = p, q, prior, weight
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))

    def num_columns(self, num_classes: int) -> int:
        """K + 1: the classes and, last, the objectness; also allocates the counts of every class."""
        self._allocate(num_classes)
        return num_classes + 1

    def _allocate(self, classes: int) -> None:
        if len(self.counts) != classes:
            self.counts = self.counts.new_zeros(classes)

    def initial_bias(self, num_classes: int) -> Tensor:
        """(K + 1,) zeros, and for the objectness what gives the probability `prior`."""
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(self.prior / (1 - self.prior))
        return bias

    def start_score(self, num_classes: int) -> float:
        """`prior`, divided among the K classes."""
        return self.prior / num_classes

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax of the classes times sigmoid of the objectness."""
        return logits[..., :-1].softmax(dim=-1) * logits[..., -1:].sigmoid()

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        self._allocate(logits.shape[-1] - 1)
        image, row = (labels >= 0).nonzero(as_tuple=True)
        classes = labels[image, row]
        if self.training:
            self.accumulate(classes.bincount(minlength=len(self.counts)))
        objectness = sigmoid_focal_sum(logits[..., -1:], labels.clamp(max=0), None, 0.0)
        return self.weight * (objectness + self._class_costs(to_float32(logits[image, row, :-1]), classes).sum())

    def _class_costs(self, logits: Tensor, classes: Tensor) -> Tensor:
        """(P, K) logits of the positives and their (P,) classes -> (P,) costs."""
        at_class = logits.gather(1, classes[:, None])
        numbers = self.counts.clamp(min=1).log().to(logits)
        with torch.no_grad():
            mitigation = self.p * (numbers - numbers[classes][:, None]).clamp(max=0)
            compensation = self.q * (logits - at_class).clamp(min=0)  # a ratio of softmax scores is e^difference
        return (logits + mitigation + compensation).logsumexp(dim=1) - at_class[:, 0]

    def end_step(self, totals: Tensor) -> None:
        if totals.numel():
            self.counts += totals.to(self.counts)
