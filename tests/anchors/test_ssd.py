"""SSD's default boxes by hand and against torchvision's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.anchors.ssd import SSDAnchors
from tests.refusals import Refuses

CPU = torch.device("cpu")
SSD300: dict[str, Any] = {
    "strides": (8, 16, 32, 64, 64, 64),
    "scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
    "aspect_ratios": [[2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0]],
    "steps": [8, 16, 32, 64, 100, 300],
}
SIDES = (38, 19, 10, 5, 3, 1)


def theirs(image: tuple[int, int], shapes: list[tuple[int, int]], *args: Any, **options: Any) -> Tensor:
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    images = ImageList(torch.zeros(1, 3, *image), [image])
    boxes: Tensor = DefaultBoxGenerator(*args, **options)(images, [torch.zeros(1, 1, *s) for s in shapes])[0]
    return boxes


def test_ssd300_has_8732_boxes_and_the_first_cell_is_as_the_paper_says() -> None:
    anchors = SSDAnchors(**SSD300)
    assert anchors.per_cell == (4, 6, 6, 6, 4, 4)
    levels = anchors([(s, s) for s in SIDES], (300, 300), CPU)
    assert [len(level) for level in levels] == [5776, 2166, 600, 150, 36, 4]
    assert sum(map(len, levels)) == 8732
    first = levels[0][:4]
    torch.testing.assert_close((first[:, :2] + first[:, 2:]) / 2, torch.full((4, 2), 4.0))
    side, between = 21.0, 300 * math.sqrt(0.07 * 0.15)
    long, short = 21 * math.sqrt(2), 21 / math.sqrt(2)
    expected = torch.tensor([[side, side], [between, between], [long, short], [short, long]])
    torch.testing.assert_close(first[:, 2:] - first[:, :2], expected)
    # The next cell is 8 px to the right, the first of the next row 8 px down.
    torch.testing.assert_close(levels[0][4:8] - first, torch.tensor([8.0, 0, 8, 0]).expand(4, 4))
    torch.testing.assert_close(levels[0][4 * 38 : 4 * 39] - first, torch.tensor([0.0, 8, 0, 8]).expand(4, 4))


@pytest.mark.parametrize("clip", ["sides", None])
def test_explicit_scales_and_steps_are_torchvisions(clip: Any) -> None:
    shapes = [(s, s) for s in SIDES]
    expected = theirs(
        (300, 300), shapes, SSD300["aspect_ratios"], scales=SSD300["scales"], steps=SSD300["steps"], clip=bool(clip)
    )
    found = torch.cat(SSDAnchors(**SSD300, clip=clip)(shapes, (300, 300), CPU))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_scales_by_formula_are_torchvisions_also_where_the_image_is_no_square() -> None:
    shapes = [(12, 20), (6, 10), (3, 5)]
    expected = theirs((192, 320), shapes, [[2, 3]] * 3, min_ratio=0.2, max_ratio=0.95)
    found = torch.cat(SSDAnchors(strides=(16, 32, 64), max_scale=0.95)(shapes, (192, 320), CPU))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_evenly_spaced_scales_by_hand() -> None:
    (first, second, third) = SSDAnchors(strides=(1, 1, 1), min_scale=0.2, max_scale=0.8, aspect_ratios=[[], [], []])(
        [(1, 1)] * 3, (100, 100), CPU
    )
    sides = [level[:, 2] - level[:, 0] for level in (first, second, third)]
    torch.testing.assert_close(sides[0], torch.tensor([20.0, 100 * math.sqrt(0.2 * 0.5)]))
    torch.testing.assert_close(sides[1], torch.tensor([50.0, 100 * math.sqrt(0.5 * 0.8)]))
    torch.testing.assert_close(sides[2], torch.tensor([80.0, 100 * math.sqrt(0.8 * 1.0)]))


def test_the_three_ways_to_clip() -> None:
    def last(clip: Any) -> list[float]:
        anchors = SSDAnchors(strides=(50,), scales=[0.8, 0.8], aspect_ratios=[[2.0]], clip=clip)
        (level,) = anchors([(2, 2)], (100, 100), CPU)
        box: list[float] = level[2].tolist()
        return box

    # In the first cell, around (25, 25): 80 * sqrt(2) = 113.1 px wide, 56.6 high.
    assert last(None) == pytest.approx([25 - 56.569, 25 - 28.284, 25 + 56.569, 25 + 28.284], abs=1e-2)
    assert last("sides") == pytest.approx([-25, 25 - 28.284, 75, 25 + 28.284], abs=1e-2)
    assert last("corners") == pytest.approx([0, 0, 25 + 56.569, 25 + 28.284], abs=1e-2)


@pytest.mark.parametrize(
    "bad",
    [
        {"scales": [0.1, 0.2]},
        {"aspect_ratios": [[2.0]]},
        {"steps": [8]},
        {"steps": [8, 0]},
        {"scales": [0.1, 0.0, 0.3]},
        {"aspect_ratios": [[2.0], [-1.0]]},
        {"min_scale": 0.9, "max_scale": 0.2},
    ],
)
def test_senseless_arguments_are_named(refuses: Refuses, bad: Any) -> None:
    with refuses(ValueError):
        SSDAnchors(strides=(8, 16), **bad)
