from typing import Any

import pytest
import torch

from detkit.anchors.grid import ExplicitAnchors
from detkit.registry import ANCHORS
from tests.refusals import Refuses

CPU = torch.device("cpu")


def test_by_hand_in_the_middle_of_the_cell() -> None:
    anchors = ExplicitAnchors(strides=(8, 16), sizes=[[(4.0, 2.0), (8.0, 8.0)], [(20.0, 10.0)]])
    assert anchors.per_cell == (2, 1)
    fine, coarse = anchors([(1, 2), (1, 1)], (8, 16), CPU)
    assert fine.tolist() == [[2, 3, 6, 5], [0, 0, 8, 8], [10, 3, 14, 5], [8, 0, 16, 8]]
    assert coarse.tolist() == [[-2, 3, 18, 13]]


def test_one_list_serves_every_level_and_yaml_gives_lists() -> None:
    anchors = ANCHORS.build({"type": "ExplicitAnchors", "sizes": [[4, 2]], "offset": 0.0}, strides=(8, 16))
    fine, coarse = anchors([(1, 1), (1, 1)], (8, 8), CPU)
    assert fine.tolist() == coarse.tolist() == [[-2, -1, 2, 1]]
    nested = ANCHORS.build({"type": "ExplicitAnchors", "sizes": [[[4, 2]], [[6, 2], [8, 1.5]]]}, strides=(8, 16))
    assert nested.per_cell == (1, 2)


@pytest.mark.parametrize(
    "sizes",
    [[], [[(1, 1)]], [(0, 1)], [[(1, 1)], []]],
)
def test_senseless_sizes_are_named(refuses: Refuses, sizes: Any) -> None:
    with refuses(ValueError):
        ExplicitAnchors(strides=(8, 16), sizes=sizes)
