"""Losses of the ranking of objects over background: Rank & Sort (2107.11669), AP (1904.06373) and aLRP (2009.13592)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from detkit.losses.focal_family import with_gradient
from detkit.losses.sigmoid import SigmoidLoss, check_shapes, to_float32
from detkit.registry import CLASS_LOSSES, FractionBelowOne, NonNegative, OpenFraction, Positive, enforce_bounds
from detkit.structures import IGNORED

ENTRIES = 2**22
"""Entries, or pairs of them, that are held at once."""
ONE = 2**32
"""An entry, as an integer that is divided among knots."""


class Errors(NamedTuple):
    """What c positives cost, and what the ranking should change.

    cost: (c,). ranking: (c,), how wrong each stands among the background, at most `cost`. sorting: (c, P), how much
    each of all positives should fall behind it; None for a loss that does not sort positives.
    """

    cost: Tensor
    ranking: Tensor
    sorting: Tensor | None = None


@enforce_bounds
class RankingLoss(SigmoidLoss):
    """The base of losses that compare the score of a positive at its class with all other scores.

    H(x) = clamp(x / (2 delta) + 1/2, 0, 1) is how much an entry x above a positive counts as ranked above it. The steps
    have no slope to learn from, so the gradient is not that of the sum: a positive is pulled up by its error, and the
    entries that are above it are pushed down by as much in all, each by its share of H (1904.06373, section 4;
    2107.11669, section 3). So the gradient sums to 0 over all entries.

    With P positives and N background entries it takes P^2 + N log P steps instead of P (P + N). H is linear between the
    knots, which are the scores of positives plus and minus `delta`, and so is every sum of it. So an entry counts as
    parts of one at the two knots beside it, with no error. Parts are added up as integers, so that the order of
    additions does not matter.
    """

    batch_wise = True
    needs_positives = True

    def __init__(
        self,
        *,
        delta: Positive = 1.0,
        across: Literal["batch", "image"] = "batch",
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.delta, self.across = delta, across
        self.batch_wise = across == "batch"

    def errors(self, above: Tensor, false: Tensor, quality: Tensor, rows: Tensor) -> Errors:
        """Errors of c of P positives.

        Args:
            above: (c, P), H of every positive over each of them; 1/2 over itself.
            false: (c,), the sum of H of the background over each of them.
            quality: (P,), 1 without it.
            rows: (c,), which of the positives they are.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        check_shapes(logits, labels, quality)
        with torch.no_grad():
            wide = to_float32(logits.detach())
            total, gradient = wide.new_zeros(()), torch.zeros_like(wide)
            quality = (labels >= 0).to(wide) if quality is None else quality.to(wide)
            whole = slice(0, len(labels))
            for part in [whole] if self.across == "batch" else [slice(i, i + 1) for i in range(len(labels))]:
                total = total + self._rank(wide[part], labels[part], quality[part], gradient[part])
        return self.weight * with_gradient(logits, total, gradient)

    def _rank(self, logits: Tensor, labels: Tensor, quality: Tensor, gradient: Tensor) -> Tensor:
        """Ranks the entries of some images; writes into `gradient` (B, A, C) and returns the sum."""
        image, row = (labels >= 0).nonzero(as_tuple=True)
        own = image, row, labels[image, row]
        positives, total = logits[own], logits.new_zeros(())
        if not len(positives):
            return total
        near = (labels != IGNORED)[..., None] & (logits > positives.min() - self.delta)
        near[own] = False
        background, positives = logits[near], positives.double()
        knots = torch.cat((positives - self.delta, positives + self.delta)).sort().values
        number = count_at(knots, background)
        up, down = torch.zeros_like(positives), torch.zeros_like(knots)
        for rows in pieces(len(positives), len(knots), logits.device):
            above, false_above = self._above(positives, positives[rows]), self._above(knots, positives[rows])
            false = (false_above * number).sum(dim=1)
            errors = self.errors(above, false, quality[image, row].double(), rows)
            total = total + errors.cost.sum().to(total)
            share = torch.where(false > 0, errors.ranking / false, 0.0)
            up[rows] += share * false
            down += false_above.mul_(share[:, None]).sum(dim=0)
            if errors.sorting is not None:
                up[rows] += errors.sorting.sum(dim=1)
                up -= errors.sorting.sum(dim=0)
        gradient[own], gradient[near] = -up.to(gradient), values_between(knots, down, background)
        return total

    def _above(self, entries: Tensor, positives: Tensor) -> Tensor:
        """(n,) and (c,) -> (c, n), H of each entry over each positive."""
        difference = entries - positives[:, None]
        return difference.div_(2 * self.delta).add_(0.5).clamp_(0, 1)


def pieces(count: int, width: int, device: torch.device) -> Iterator[Tensor]:
    """The numbers 0 to count - 1, in pieces of at most ENTRIES / width numbers, at least 1."""
    return iter(torch.split(torch.arange(count, device=device), max(1, ENTRIES // width)))


def beside(knots: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending knots (k,) and entries (n,) -> the upper of the two knots beside each, and its part of the way there.

    Below the first knot the part is 0, above the last it is 1.
    """
    upper = torch.bucketize(entries.double(), knots).clamp_(1, len(knots) - 1)
    lower = knots[upper - 1]
    return upper, ((entries - lower) / (knots[upper] - lower)).clamp_(0, 1).nan_to_num_(0.0)


def count_at(knots: Tensor, entries: Tensor) -> Tensor:
    """Knots (k,) and entries (n,) -> (k,) number of entries at each knot, in parts."""
    parts = torch.zeros(len(knots), dtype=torch.int64, device=knots.device)
    for piece in torch.split(entries, ENTRIES):
        upper, part = beside(knots, piece)
        part = (part * ONE).round_().long()
        parts.index_add_(0, upper, part).index_add_(0, upper - 1, ONE - part)
    return parts.double() / ONE


def values_between(knots: Tensor, values: Tensor, entries: Tensor) -> Tensor:
    """Values (k,) at knots (k,) -> (n,) values at the entries, in their type."""
    between = torch.empty_like(entries)
    for piece, out in zip(torch.split(entries, ENTRIES), torch.split(between, ENTRIES), strict=True):
        upper, part = beside(knots, piece)
        out.copy_(values[upper - 1].lerp(values[upper], part))
    return between


@CLASS_LOSSES.register()
class APLoss(RankingLoss):
    """1 - precision at each positive, so that the mean over the positives is 1 - average precision (1904.06373).

    A positive costs N / (1 + P + N): N and P are the numbers of background entries and of other positives that are
    ranked above it, over all classes. Its gradient comes from the ranking, not from the steps in it (section 4).

    `across: batch` is the paper's: it ranks the images that a process holds at once, so that another number of
    processes or micro-batches is another loss. `across: image` ranks each image by itself, so that the sum does not
    depend on the split. Without a positive in what is ranked together there is no ranking, no loss and no gradient.
    The normalizer `PositiveCount` makes the sum the paper's mean.

    Args:
        delta: half width of the step, in logits.
        across: whether the entries of the whole micro-batch are ranked together, or those of each image.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def errors(self, above: Tensor, false: Tensor, quality: Tensor, rows: Tensor) -> Errors:
        cost = false / (ranks(above) + false)
        return Errors(cost, cost)


@CLASS_LOSSES.register()
class ALRPLoss(RankingLoss):
    """The class part of aLRP loss (2009.13592): AP loss in which badly placed objects count.

    aLRP is the average localisation recall precision. A positive costs (N + sum of e over it and the positives above
    it) / (1 + P + N), with N and P as in `APLoss` and e = (1 - IoU) / (1 - threshold), at most 1. The error of its
    ranking is that without its own e. Where all boxes are perfect it is `APLoss`.

    The paper's loss also weighs the box loss of each positive by its rank. A class loss does not see the box loss, so
    that keeps its own weights. `across`, the split of a batch and images without objects are as in `APLoss`.

    Args:
        threshold: IoU at which e is 1; the one that makes a positive, in the paper.
        delta: half width of the step, in logits.
        across: whether the entries of the whole micro-batch are ranked together, or those of each image.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    uses_quality = True

    def __init__(
        self,
        *,
        threshold: FractionBelowOne = 0.5,
        delta: Positive = 1.0,
        across: Literal["batch", "image"] = "batch",
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(delta=delta, across=across, prior=prior, weight=weight)
        self.threshold = threshold

    def errors(self, above: Tensor, false: Tensor, quality: Tensor, rows: Tensor) -> Errors:
        misplaced = ((1 - quality) / (1 - self.threshold)).clamp(max=1)
        rank = ranks(above) + false
        # Itself counts 1 at its rank, and above holds 1/2; what its own place costs, a better rank does not change.
        others = (above * misplaced).sum(dim=1) - misplaced[rows] / 2
        ranking = (false + others) / rank
        return Errors(ranking + misplaced[rows] / rank, ranking)


@CLASS_LOSSES.register()
class RankSortLoss(RankingLoss):
    """Rank & Sort: positives above the background, and those of better boxes above the others (2107.11669).

    A positive costs N / (P + N), where N and P are the background entries and the positives above it, plus by how much
    the mean of 1 - quality of the positives above it exceeds that of those which are also at least as good. A positive
    is above itself by H(0) = 1/2 here, as the equations say. With one quality for all positives nothing is sorted.

    The paper multiplies the box loss by the quotient of both losses at each step; here the weights are those of the
    config. `across`, the split of a batch and images without objects are as in `APLoss`. The quality is the IoU of the
    predicted box, or what the assigner says.

    Source: 2107.11669, section 4.

    Args:
        delta: half width of the step, in logits.
        across: whether the entries of the whole micro-batch are ranked together, or those of each image.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    uses_quality = True

    def __init__(
        self,
        *,
        delta: Positive = 0.5,
        across: Literal["batch", "image"] = "batch",
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(delta=delta, across=across, prior=prior, weight=weight)

    def errors(self, above: Tensor, false: Tensor, quality: Tensor, rows: Tensor) -> Errors:
        ranking = false / (above.sum(dim=1) + false)
        worse = above * (quality < quality[rows, None])
        wanted = above - worse
        current, target = ((part * (1 - quality)).sum(dim=1) / part.sum(dim=1) for part in (above, wanted))
        sorting = (current - target).clamp(min=0)  # rounding may take it below
        behind = worse.sum(dim=1)
        share = torch.where(behind > 0, sorting / behind, 0.0)
        return Errors(ranking + sorting, ranking, worse * share[:, None])


def ranks(above: Tensor) -> Tensor:
    """(c, P) H of positives, 1/2 of each over itself -> (c,) ranks among positives, of which itself is 1."""
    return above.sum(dim=1) + 0.5
