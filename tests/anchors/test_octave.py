from typing import Any

import pytest
import torch

from detkit.anchors.grid import OctaveAnchors
from detkit.anchors.torchvision import TorchvisionAnchors
from tests.refusals import Refuses

CPU = torch.device("cpu")


def test_one_square_anchor_a_cell_by_hand() -> None:
    anchors = OctaveAnchors(strides=(8,), base_scale=2.0, scales_per_octave=1, aspect_ratios=[1.0])
    (level,) = anchors([(2, 2)], (16, 16), CPU)
    # Sides of 16 px around (0, 0), (8, 0), (0, 8), (8, 8): x runs fastest.
    assert level.tolist() == [[-8, -8, 8, 8], [0, -8, 16, 8], [-8, 0, 8, 16], [0, 0, 16, 16]]


def test_offset_moves_to_the_middle_of_the_cell() -> None:
    anchors = OctaveAnchors(strides=(8,), base_scale=1.0, scales_per_octave=1, aspect_ratios=[1.0], offset=0.5)
    (level,) = anchors([(1, 2)], (8, 16), CPU)
    assert level.tolist() == [[0, 0, 8, 8], [8, 0, 16, 8]]


def test_scales_lie_within_an_octave_and_ratios_keep_the_area() -> None:
    anchors = OctaveAnchors(strides=(8, 16))
    assert anchors.per_cell == (9, 9)
    first, second = anchors([(1, 1), (1, 1)], (16, 16), CPU)
    sides = (first[:, 2:] - first[:, :2]).double()
    area = sides.prod(dim=1).sqrt()
    torch.testing.assert_close(area[::3], 32 * 2 ** (torch.arange(3).double() / 3), rtol=1e-6, atol=0)
    torch.testing.assert_close(area, area[::3].repeat_interleave(3), rtol=1e-6, atol=0)
    # Height over width, in the order given, inside each scale.
    torch.testing.assert_close(sides[:3, 1] / sides[:3, 0], torch.tensor([0.5, 1, 2]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(second, first * 2)


def test_the_order_within_a_cell_is_of_scales_or_of_ratios() -> None:
    by_scale, by_ratio = (
        OctaveAnchors(strides=(8,), scales_per_octave=2, order=order)([(1, 1)], (8, 8), CPU)[0]
        for order in ("scale", "ratio")
    )
    assert torch.equal(by_ratio, by_scale[[0, 3, 1, 4, 2, 5]])


@pytest.mark.parametrize(
    "bad",
    [{"aspect_ratios": []}, {"aspect_ratios": [-1.0]},
     {"scales_per_octave": 0}, {"base_scale": 0.0}],
)  # fmt: skip
def test_senseless_arguments_are_named(refuses: Refuses, bad: dict[str, Any]) -> None:
    with refuses(ValueError):
        OctaveAnchors(strides=(8,), **bad)


def test_torchvision_anchors_are_whole_pixels_and_their_stride_is_the_images() -> None:
    anchors = TorchvisionAnchors(strides=(8, 128))
    assert anchors.per_cell == (9, 9)
    fine, coarse = anchors([(40, 40), (3, 3)], (320, 320), CPU)
    assert (fine == fine.round()).all()
    assert len(fine) == 40 * 40 * 9
    # 320 // 3 = 106 px a cell, where OctaveAnchors has 128.
    assert (coarse[9] - coarse[0]).tolist() == [106, 0, 106, 0]


def test_torchvision_anchors_need_sizes_for_every_level(refuses: Refuses) -> None:
    with refuses(ValueError):
        TorchvisionAnchors(strides=(8, 16), sizes=[[32]])
