"""Gradient harmonising mechanism for classification, GHM-C (1811.05181, equations 9 to 12)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.focal_family import with_gradient
from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.registry import CLASS_LOSSES
from detkit.structures import IGNORED

UNUSED = 255


@CLASS_LOSSES.register()
class GHMCLoss(SigmoidLoss):
    """Binary cross-entropy of every entry over the number of entries whose gradient is about as large.

    The size of an entry's gradient is g = |p - t|, its range is cut into `bins`, and an entry costs
    P / (bins R) of its cross-entropy: R entries are in its bin, and P are the positives of a step. Divided by
    the positives, as losses are, that is equation 11. Empty bins count in `bins` too.

    R and P are moving averages over past steps (equation 12, `momentum` is its alpha) that change
    once a step, from sums over all ranks, and stand in the checkpoint. Before the first step, and where a bin has
    more entries now than on average, the entries of this call count: a bin that fills up suddenly would
    otherwise explode. So this loss looks at a batch as a whole. prior, weight: as in `BCELoss`.
    """

    batch_wise = True
    average: Tensor

    def __init__(self, *, bins: int = 30, momentum: float = 0.75, prior: float = 0.01, weight: float = 1.0) -> None:
        super().__init__(prior=prior, weight=weight)
        if not 1 <= bins < UNUSED:
            raise ValueError(f"bins: {bins} is not between 1 and {UNUSED - 1}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: {momentum} is not in [0, 1)")
        self.bins, self.momentum = bins, momentum
        # Entries a bin, then positives; below zero: no step yet.
        self.register_buffer("average", torch.full((bins + 1,), -1.0, dtype=torch.float64))

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        check_shapes(logits, labels)
        with torch.no_grad():
            errors = signed_errors(logits, labels)
            places = bins_of(errors, labels, self.bins)
            found = torch.cat([count(places, self.bins), (labels >= 0).sum()[None]]).double()
            if self.training:
                self.accumulate(found)
            weights = self._weights(found).to(errors)
            total = errors.new_zeros(())
            for x, error, place in zip(to_float32(logits.detach()), errors, places, strict=True):
                each = weights.index_select(0, place.int().flatten()).view_as(error)
                # Cross-entropy is softplus of the logit turned so that larger is more wrong.
                total = total + (each * F.softplus(torch.where(error < 0, -x, x))).sum()
                error *= each
        return self.weight * with_gradient(logits, total, errors)

    def _weights(self, found: Tensor) -> Tensor:
        """(bins + 1,) counts of this call -> (UNUSED + 1,) factor on the entries of each bin, 0 for the unused."""
        average = torch.where(self.average < 0, found, self.average)
        entries = average[:-1].maximum(found[:-1]).clamp(min=1)
        weights = average[-1].clamp(min=1) / (self.bins * entries)
        return F.pad(weights, (0, UNUSED + 1 - self.bins))

    def end_step(self, totals: Tensor) -> None:
        """See `Loss.end_step`."""
        if totals.numel():
            new = totals.to(self.average)
            self.average.copy_(torch.where(self.average < 0, new, new.lerp(self.average, self.momentum)))


def signed_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, A, C), labels (B, A) -> (B, A, C) p - t, below zero (at most -0.0) for a positive's own class only."""
    errors = to_float32(logits.detach()).sigmoid()
    if logits.shape[-1]:
        own, positive = labels.clamp(min=0)[..., None], (labels >= 0)[..., None]
        picked = errors.gather(-1, own)
        miss = -to_float32(logits.detach().gather(-1, own)).neg().sigmoid()
        # A miss may round to 0; the smallest number keeps the sign that says what the entry is.
        errors.scatter_(-1, own, torch.where(positive, miss.clamp(max=-1e-38), picked))
    return errors


def bins_of(errors: Tensor, labels: Tensor, bins: int) -> Tensor:
    """(B, A, C) errors -> uint8, the bin of their size, UNUSED where the anchor is ignored."""
    places = (errors.abs() * bins).floor_().clamp_(max=bins - 1).to(torch.uint8)
    return places.masked_fill_((labels == IGNORED)[..., None], UNUSED)


def count(places: Tensor, bins: int) -> Tensor:
    """(bins,) how many entries lie in each bin. On a GPU bincount would wait for the host, so bins are counted."""
    if places.is_cpu:
        return places.flatten().bincount(minlength=bins)[:bins]
    return torch.stack([(places == i).count_nonzero() for i in range(bins)])
