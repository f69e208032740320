from __future__ import annotations

import pytest
import torch

from detkit.assigners.base import in_ignore_region
from detkit.assigners.matching import Conflicts, centres_inside, highest, lowest


def test_of_equal_values_the_first_columns_are_taken() -> None:
    values = torch.tensor([[2.0, 1, 1, 0.5, 1, 2], [0, 0, 0, 0, 0, 0]])
    assert lowest(values, 3).tolist() == [[3, 1, 2], [0, 1, 2]]
    assert highest(values, 3).tolist() == [[0, 5, 1], [0, 1, 2]]


def test_the_order_is_that_of_the_numbers() -> None:
    values = torch.rand(5, 1000, generator=torch.Generator().manual_seed(0)) * 1e5
    assert torch.equal(lowest(values, 7), values.topk(7, largest=False).indices)
    assert torch.equal(highest(values, 7), values.topk(7).indices)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_an_anchor_goes_to_the_strongest_claim_and_of_equals_to_the_first_object(order: list[int]) -> None:
    anchors, objects = torch.tensor([1, 1, 3, 3])[order], torch.tensor([0, 5, 2, 7])[order]
    strength = torch.tensor([0.25, 0.75, 0.5, 0.5])[order]
    conflicts = Conflicts(torch.zeros(5, 4))
    for one in torch.arange(4).split(2):
        conflicts.add(anchors[one], objects[one], strength[one])
    claimed, matched, strength = conflicts.resolve()
    assert claimed.tolist() == [False, True, False, True, False]
    assert matched.tolist() == [0, 5, 0, 2, 0]
    assert strength[claimed].tolist() == [0.75, 0.5]
    conflicts.drop(torch.tensor([False, True, True, False, False]))
    assert conflicts.resolve()[0].tolist() == [False, False, False, True, False]


def test_a_centre_on_the_edge_is_not_inside() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    anchors = torch.tensor([[4.0, 4, 6, 6], [-1, 4, 1, 6], [8, 8, 11, 11], [8, 8, 13, 11]])
    assert centres_inside(anchors, box).tolist() == [True, False, True, False]


def test_no_anchor_lies_in_a_region() -> None:
    assert in_ignore_region(torch.zeros(0, 4), torch.rand(3, 4), 0.5, 10).shape == (0,)
