"""Which background anchors are chosen."""

from __future__ import annotations

from typing import Any

import torch

from detkit.losses.mining import hard_negatives
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

B, I = BACKGROUND, IGNORED  # noqa: E741  (short names make the rows readable)


def chosen(costs: Any, labels: Any, ratio: float = 3.0, floor: int = 0) -> Any:
    mask = hard_negatives(torch.tensor([costs]), torch.tensor([labels]), ratio, floor)
    return mask[0].nonzero()[:, 0].tolist()


def test_the_dearest_background_anchors_are_chosen_at_the_ratio() -> None:
    costs = [0.9, 0.1, 0.5, 0.7, 0.3, 0.6]
    assert chosen(costs, [0, B, B, B, B, B], ratio=3) == [2, 3, 5]
    assert chosen(costs, [0, B, B, B, B, B], ratio=1) == [3]
    assert chosen(costs, [0, 4, B, B, B, B], ratio=1.5) == [2, 3, 5]


def test_positive_and_ignored_anchors_are_never_chosen() -> None:
    assert chosen([9.0, 8.0, 7.0, 0.1], [1, I, I, B], ratio=3) == [3]
    assert chosen([9.0, 8.0], [1, I], ratio=3, floor=2) == []


def test_an_image_without_boxes_gives_the_floor() -> None:
    costs = [0.2, 0.4, 0.3, 0.1]
    assert chosen(costs, [B, B, B, B], floor=2) == [1, 2]
    assert chosen(costs, [B, B, B, B], floor=0) == []
    assert chosen(costs, [B, B, B, B], floor=100) == [0, 1, 2, 3]
    assert chosen(costs, [0, B, B, B], ratio=1, floor=2) == [1, 2]


def test_of_equal_costs_the_earlier_anchor_goes_first() -> None:
    labels = torch.full((1, 1000), BACKGROUND)
    mask = hard_negatives(torch.zeros(1, 1000), labels, 3.0, 10)
    assert mask[0].nonzero()[:, 0].tolist() == list(range(10))


def test_an_image_of_a_batch_is_chosen_from_as_if_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(4, 500, generator=generator)
    labels = torch.randint(-2, 3, (4, 500), generator=generator)
    labels[1:3][labels[1:3] >= 0] = BACKGROUND
    labels[0, 10:] = BACKGROUND
    together = hard_negatives(costs, labels, 0.5, 7)
    for i in range(4):
        assert torch.equal(together[i : i + 1], hard_negatives(costs[i : i + 1], labels[i : i + 1], 0.5, 7))
    assert together[1:3].sum(1).tolist() == [7, 7]


def test_no_gradient_goes_through_the_choice() -> None:
    costs = torch.rand(1, 8, requires_grad=True)
    mask = hard_negatives(costs, torch.full((1, 8), BACKGROUND), 3.0, 4)
    assert not mask.requires_grad
    assert int(mask.sum()) == 4


def test_shapes_must_fit(refuses: Refuses) -> None:
    with refuses(ValueError):
        hard_negatives(torch.zeros(1, 3), torch.zeros(1, 4, dtype=torch.int64), 3.0, 1)


def test_no_anchors_at_all() -> None:
    assert hard_negatives(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), 3.0, 5).shape == (2, 0)
