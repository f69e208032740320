"""Probabilistic anchor assignment (PAA, 2007.08103, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, AssignerNode, Fraction, NonNegative, PositiveInt
from detkit.structures import BACKGROUND, Assignment, Candidates, Targets

STEPS, TOLERANCE = 100, 1e-3
"""Most steps of expectation and maximisation, and the gain of the mean log-likelihood that ends them."""
LEAST_VARIANCE = 1e-6
"""Added to every variance, so that a component of equal costs has a density."""
LEAST_PROBABILITY = 1e-7
"""Below it a logarithm is not taken."""


@ASSIGNERS.register()
class MixtureAssigner(Assigner):
    """Splits the candidates of every object into good and bad by a mixture of two Gaussians over their costs.

    Another assigner proposes anchors for each object. On every level the `topk` of lowest cost are its candidates; a
    mixture is fitted to their costs, and those of the component of lower mean are positive, up to the most
    probable of them. All other proposed anchors are background. An object with fewer than two candidates, or whose
    mixture does not give the lower component any, gets none.

    The cost of an anchor is its focal loss for the object's class and the generalised IoU loss of its predicted box.
    The mixture starts from the lowest and the highest cost, with equal weights and variances of 1, in float64.

    Source: 2007.08103, section 3.2, equations 5 to 9.

    Args:
        assigner: the assigner that proposes anchors.
        topk: candidates of an object per level.
        alpha: weight of the object's class in the focal cost; the other classes get 1 - alpha.
        gamma: exponent of the focal cost.
        box_cost: factor on the IoU cost; the weight of the box loss, as a rule.
    """

    def __init__(
        self,
        *,
        assigner: AssignerNode,
        topk: PositiveInt = 9,
        alpha: Fraction = 0.25,
        gamma: NonNegative = 2.0,
        box_cost: NonNegative = 1.3,
    ) -> None:
        inner: Assigner = ASSIGNERS.build(assigner)
        super().__init__(ignore_overlap=inner.ignore_overlap, chunk_elements=inner.chunk_elements)
        self.assigner, self.topk, self.changes_at = inner, topk, inner.changes_at
        self.alpha, self.gamma, self.box_cost = alpha, gamma, box_cost

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        proposed: Assignment = self.assigner(candidates, targets)
        positive = proposed.labels >= 0
        labels = proposed.labels.masked_fill(positive, BACKGROUND)
        if candidates.ignored is not None:
            positive &= ~candidates.ignored
        rows = positive.nonzero()[:, 0]
        if len(rows):
            chosen = rows[self._choose(candidates, targets, rows, proposed.matched[rows])]
            labels = labels.index_put((chosen,), proposed.labels[chosen])
        return Assignment(labels, proposed.matched)

    def _choose(self, candidates: Candidates, targets: Targets, rows: Tensor, objects: Tensor) -> Tensor:
        """Which of the proposed anchors `rows` (P,), of `objects` (P,), become positive: indices into them."""
        costs = self.costs(candidates, targets, rows, objects)
        ends = torch.tensor(candidates.level_sizes, device=rows.device).cumsum(0)
        level = torch.searchsorted(ends, rows, right=True)
        best = lowest_of_groups(costs, objects * len(ends) + level, self.topk)
        best = best[costs[best].argsort(stable=True)]
        best = best[objects[best].argsort(stable=True)]
        place = rank_in_group(objects[best])
        table = (len(targets.boxes), self.topk * len(ends))
        values = costs.new_zeros(table, dtype=torch.float64).index_put((objects[best], place), costs[best].double())
        filled = torch.zeros(table, dtype=torch.bool, device=rows.device).index_put(
            (objects[best], place), torch.ones_like(place, dtype=torch.bool)
        )
        return best[lower_component(values, filled)[objects[best], place]]

    def costs(self, candidates: Candidates, targets: Targets, rows: Tensor, objects: Tensor) -> Tensor:
        """(P,) costs of the anchors `rows` (P,) for the `objects` (P,)."""
        scores, predicted = candidates.scores()[rows], candidates.boxes()[rows]
        wrong = (1 - self.alpha) * scores.pow(self.gamma) * -(1 - scores).clamp(min=LEAST_PROBABILITY).log()
        right = self.alpha * (1 - scores).pow(self.gamma) * -scores.clamp(min=LEAST_PROBABILITY).log()
        column = targets.labels[objects][:, None]
        classes = wrong.scatter(1, column, right.gather(1, column)).sum(dim=1)
        return classes + self.box_cost * (1 - box_ops.paired_giou(predicted, targets.boxes[objects]))


def rank_in_group(groups: Tensor) -> Tensor:
    """Ascending group numbers (n,) -> (n,) place of each in its group, from 0."""
    first = torch.searchsorted(groups, groups)
    return torch.arange(len(groups), device=groups.device) - first


def lowest_of_groups(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Values and group numbers (n,) -> indices of the `count` lowest of each group, of equal ones the first."""
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    return order[rank_in_group(groups[order]) < count]


def lower_component(costs: Tensor, filled: Tensor) -> Tensor:
    """(G, n) bool: the costs of the component of lower mean, up to the one where the mixture is densest.

    costs (G, n) float64, ascending in each row where `filled` (G, n), which comes first.
    """
    joint = fit_mixture(costs, filled)
    lower = (joint[..., 0] >= joint[..., 1]) & filled & (filled.sum(dim=1, keepdim=True) >= 2)
    density = joint.logsumexp(dim=-1).masked_fill(~lower, -math.inf)
    members = lower.cumsum(dim=1)
    # The members are counted from 1; those up to the densest stay.
    last = members.gather(1, density.argmax(dim=1, keepdim=True))
    return lower & (members <= last)


def fit_mixture(values: Tensor, filled: Tensor) -> Tensor:
    """Fits two Gaussians to each row -> (G, n, 2) log of weight times density of both, the first of the lower start.

    values (G, n) float64, of which those `filled` count. Every row ends by itself, when its mean log-likelihood gains
    less than TOLERANCE.
    """
    number = filled.sum(dim=1).clamp(min=1)
    ends = values.masked_fill(~filled, math.inf).amin(dim=1), values.masked_fill(~filled, -math.inf).amax(dim=1)
    means = torch.stack(ends, dim=1).nan_to_num(posinf=0, neginf=0)
    variances, weights = torch.ones_like(means), torch.full_like(means, 0.5)
    before, going = torch.full_like(means[:, 0], -math.inf), torch.ones_like(number, dtype=torch.bool)
    for _ in range(STEPS):
        joint = log_joint(values, means, variances, weights)
        evidence = joint.logsumexp(dim=-1)
        shares = (joint - evidence[..., None]).exp() * filled[..., None]
        mass = shares.sum(dim=1) + 10 * torch.finfo(values.dtype).eps
        new_means = (shares * values[..., None]).sum(dim=1) / mass
        spread = (values[..., None] - new_means[:, None]).square()
        new_variances = (shares * spread).sum(dim=1) / mass + LEAST_VARIANCE
        likelihood = (evidence * filled).sum(dim=1) / number
        means = torch.where(going[:, None], new_means, means)
        variances = torch.where(going[:, None], new_variances, variances)
        weights = torch.where(going[:, None], mass / mass.sum(dim=1, keepdim=True), weights)
        going = going & ((likelihood - before).abs() >= TOLERANCE)
        before = likelihood
        if not bool(going.any()):
            break
    return log_joint(values, means, variances, weights)


def log_joint(values: Tensor, means: Tensor, variances: Tensor, weights: Tensor) -> Tensor:
    """Values (G, n); means, variances and weights (G, 2) -> (G, n, 2) log of weight times density."""
    square = (values[..., None] - means[:, None]).square() / variances[:, None]
    return weights.log()[:, None] - 0.5 * (square + (2 * math.pi * variances).log()[:, None])
