"""Gradient harmonising mechanism for classification, GHM-C (1811.05181, equations 9 to 12)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.focal_family import with_gradient
from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.registry import CLASS_LOSSES, FractionBelowOne, NonNegative, OpenFraction
from detkit.structures import IGNORED

UNUSED = 255
"""Bin of the entries of ignored anchors."""


@CLASS_LOSSES.register()
class GHMCLoss(SigmoidLoss):
    """Binary cross-entropy of every entry, divided by the number of entries with a similar gradient.

    An entry has the gradient magnitude g = |p - t|. The range of g is cut into `bins`, and an entry counts
    P / (bins R) of its cross-entropy, where R entries are in its bin and P are the positives of the step. Divided by
    the positives, as losses are, that is equation 11. Empty bins count in `bins` too.

    R and P are moving averages over past steps (equation 12) that change once per step, from sums over all
    ranks, and are part of the checkpoint. Before the first step, and where a bin has more entries now than on
    average, the entries of this call count: a bin that fills up suddenly would otherwise explode. So the sum over a
    batch is not that over its images.

    Source: 1811.05181, equations 9 to 12.

    Args:
        bins: number of bins of the gradient magnitude.
        momentum: fraction that the moving averages keep per step, the paper's alpha.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    batch_wise = True
    average: Tensor

    def __init__(
        self,
        *,
        bins: Annotated[int, Interval(ge=1, le=UNUSED - 1)] = 30,
        momentum: FractionBelowOne = 0.75,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.bins, self.momentum = bins, momentum
        # Entries per bin, then positives; below zero before the first step.
        self.register_buffer("average", torch.full((bins + 1,), -1.0, dtype=torch.float64))

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels)
        with torch.no_grad():
            errors = signed_errors(logits, labels)
            bins = bins_of(errors, labels, self.bins)
            counts = torch.cat([count(bins, self.bins), (labels >= 0).sum()[None]]).double()
            if self.training:
                self.accumulate(counts)
            weight_of_bin = self._weights(counts).to(errors)
            total = errors.new_zeros(())
            for x, error, image_bins in zip(to_float32(logits.detach()), errors, bins, strict=True):
                weight = weight_of_bin.index_select(0, image_bins.int().flatten()).view_as(error)
                # Cross-entropy is softplus of the logit, with the sign that makes larger more wrong.
                total = total + (weight * F.softplus(torch.where(error < 0, -x, x))).sum()
                error *= weight
        return self.weight * with_gradient(logits, total, errors)

    def _weights(self, counts: Tensor) -> Tensor:
        """(bins + 1,) counts of this call -> (UNUSED + 1,) factor on the entries of each bin, 0 for UNUSED."""
        average = torch.where(self.average < 0, counts, self.average)
        entries = average[:-1].maximum(counts[:-1]).clamp(min=1)
        weights = average[-1].clamp(min=1) / (self.bins * entries)
        return F.pad(weights, (0, UNUSED + 1 - self.bins))

    def end_step(self, totals: Tensor) -> None:
        if totals.numel():
            new = totals.to(self.average)
            self.average.copy_(torch.where(self.average < 0, new, new.lerp(self.average, self.momentum)))


def signed_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, A, C), labels (B, A) -> (B, A, C) p - t, below zero for a positive's class only."""
    errors = to_float32(logits.detach()).sigmoid()
    if logits.shape[-1]:
        column, positive = labels.clamp(min=0)[..., None], (labels >= 0)[..., None]
        picked = errors.gather(-1, column)
        miss = -to_float32(logits.detach().gather(-1, column)).neg().sigmoid()
        # A miss may round to 0; the smallest number keeps the sign that marks a positive's class.
        errors.scatter_(-1, column, torch.where(positive, miss.clamp(max=-1e-38), picked))
    return errors


def bins_of(errors: Tensor, labels: Tensor, bins: int) -> Tensor:
    """(B, A, C) errors -> uint8, the bin of their magnitude, UNUSED where the anchor is ignored."""
    entries = (errors.abs() * bins).floor_().clamp_(max=bins - 1).to(torch.uint8)
    return entries.masked_fill_((labels == IGNORED)[..., None], UNUSED)


def count(entries: Tensor, bins: int) -> Tensor:
    """(bins,) number of entries in each bin. On a GPU bincount would wait for the host, so bins are compared."""
    if entries.is_cpu:
        return entries.flatten().bincount(minlength=bins)[:bins]
    return torch.stack([(entries == i).count_nonzero() for i in range(bins)])
