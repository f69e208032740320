from __future__ import annotations

from typing import Any

import torch

from detkit.assigners.base import assign as assign_by
from detkit.assigners.mixture import MixtureAssigner, fit_mixture, lower_component, lowest_of_groups
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets

BOX = [0.0, 0.0, 100.0, 100.0]
PROPOSE = {"type": "MaxIoUAssigner", "positive": 0.1, "negative": 0.1, "low_quality": False}


def assign(scores: list[float], boxes: Any = (BOX,), ignore: Any = (), **options: Any) -> Assignment:
    """Anchors that are all the object's box, on one level, with scores of one class."""
    anchors = torch.tensor([BOX]).expand(len(scores), 4) + torch.zeros(len(scores), 1)
    targets = Targets(
        torch.tensor(boxes), torch.zeros(len(boxes), dtype=torch.int64), torch.tensor(ignore).float().reshape(-1, 4)
    )
    candidates = Candidates(anchors, (len(scores),), lambda: torch.tensor(scores)[:, None], lambda: anchors)
    return assign_by(MixtureAssigner(assigner=PROPOSE, **options), candidates, targets)


def test_the_cheap_ones_are_positive_and_the_dear_ones_background() -> None:
    found = assign([0.9, 0.01, 0.88, 0.02, 0.91, 0.012])
    assert (found.labels == 0).tolist() == [True, False, True, False, True, False]
    assert set(found.labels.tolist()) == {0, BACKGROUND}


def test_no_more_candidates_than_topk() -> None:
    found = assign([0.9, 0.01, 0.88, 0.02, 0.91, 0.012], topk=2)
    chosen = (found.labels == 0).nonzero()[:, 0].tolist()
    assert 4 in chosen
    assert set(chosen) <= {0, 4}


def test_an_object_with_one_candidate_gets_none() -> None:
    assert assign([0.9]).labels.tolist() == [BACKGROUND]


def test_an_ignored_anchor_is_no_candidate() -> None:
    found = assign([0.9, 0.01], ignore=[BOX])
    assert found.labels.tolist() == [IGNORED, IGNORED]


def test_the_lowest_of_each_group_of_equal_ones_the_first() -> None:
    values, groups = torch.tensor([3.0, 1.0, 2.0, 1.0, 5.0]), torch.tensor([1, 0, 0, 0, 1])
    assert lowest_of_groups(values, groups, 2).tolist() == [1, 3, 0, 4]
    assert lowest_of_groups(values, groups, 1).tolist() == [1, 0]


def test_members_end_where_the_mixture_is_densest() -> None:
    # 0.2 and 0.3 are the middle of the lower group, whose last member lies apart.
    costs = torch.tensor([[0.0, 0.2, 0.21, 0.45, 3.0, 3.1, 3.2]]).double()
    lower = lower_component(costs, torch.ones_like(costs, dtype=torch.bool))
    density = fit_mixture(costs, torch.ones_like(costs, dtype=torch.bool)).logsumexp(dim=-1)[0, :4]
    assert lower.tolist() == [[i <= int(density.argmax()) for i in range(7)]]
    assert 0 < int(density.argmax()) < 3


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    costs = torch.rand(5, 12).double().sort(dim=1).values
    filled = torch.arange(12) < torch.tensor([12, 7, 2, 1, 0])[:, None]
    together = fit_mixture(costs, filled)
    for row in range(3):
        count = int(filled[row].sum())
        alone = fit_mixture(costs[row : row + 1, :count], filled[row : row + 1, :count])
        torch.testing.assert_close(together[row, :count], alone[0])
    assert not lower_component(costs, filled)[3:].any()
    assert together.isfinite().all()
