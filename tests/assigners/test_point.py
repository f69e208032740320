"""The points of FCOS, by hand: levels by size, centre sampling, the smallest object."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detkit.assigners.base import assign as assign_by
from detkit.config import load_config
from detkit.registry import ANCHORS, ASSIGNERS
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets

LEVELS = [(8, 8), (4, 4)]
SIZES = [64, 16]


def points() -> Tensor:
    node = load_config("configs/fcos/fcos.yaml").anchors
    levels: list[Tensor] = ANCHORS.build(node, strides=(8, 16))(LEVELS, (64, 64), torch.device("cpu"))
    return torch.cat(levels)


def assign(boxes: list[list[float]], ignore: list[list[float]] | None = None, **settings: object) -> Assignment:
    targets = Targets(torch.tensor(boxes).view(-1, 4), torch.arange(len(boxes)), torch.tensor(ignore or []).view(-1, 4))
    nothing = torch.zeros(sum(SIZES), 4)
    candidates = Candidates(points(), tuple(SIZES), lambda: nothing, lambda: nothing)
    return assign_by(ASSIGNERS.build({"type": "PointAssigner", **settings}), candidates, targets)


def test_an_anchor_is_the_cell_itself() -> None:
    assert points()[0].tolist() == [0, 0, 8, 8]
    assert points()[-1].tolist() == [48, 48, 64, 64]


@pytest.mark.parametrize(("radius", "count", "first"), [(None, 25, 0), (1.5, 9, 1)])
def test_points_of_an_object_with_and_without_centre_sampling(radius: float | None, count: int, first: int) -> None:
    # The middle is (20, 20), a point; its neighbours are 8 px away, and 1.5 strides are 12.
    labels = assign([[2.0, 2, 38, 38]], radius=radius, reach=100.0).labels
    inside = (labels[:64].view(8, 8) == 0).nonzero()
    assert len(inside) == count
    assert inside.amin().item() == first


def test_levels_share_the_objects_out_by_size() -> None:
    small, large = [4.0, 4, 20, 20], [0.0, 0, 64, 64]
    levels = torch.split(assign([small], reach=4.0).labels, SIZES)
    assert (levels[0] == 0).any()
    assert (levels[1] == BACKGROUND).all(), "within 16 px of the point: less than half of 4 strides of 16"
    levels = torch.split(assign([large], reach=3.0).labels, SIZES)
    assert (levels[0] == BACKGROUND).all(), "32 px and more from the middle, and 24 are the most at stride 8"
    assert (levels[1] == 0).any()


def test_the_smaller_of_two_objects_has_its_points_whatever_their_order() -> None:
    small, large = [12.0, 12, 28, 28], [0.0, 0, 40, 40]
    for boxes, row in (([small, large], 0), ([large, small], 1)):
        assignment = assign(boxes, radius=None, reach=100.0)
        at = 2 * 8 + 2  # the point (20, 20)
        assert [assignment.labels[at], assignment.matched[at]] == [row, row]


def test_ignore_regions_and_images_without_objects() -> None:
    labels = assign([], [[0.0, 0, 16, 16]]).labels
    assert (labels == IGNORED).sum() == 4 + 1
    assert (labels == BACKGROUND).sum() == 60 + 15
    assert (assign([[0.0, 0, 16, 16]], [[0.0, 0, 16, 16]], radius=None).labels[:64] == 0).sum() == 4
