"""SSD's extra levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.necks.ssd_extra_levels import SSDExtraLevels
from detkit.structures import FeatureShape
from tests.refusals import Refuses

SHAPES = {"c3": FeatureShape(8, 8), "c4": FeatureShape(12, 16)}


def features(size: int, batch: int = 1) -> dict[str, Tensor]:
    return {n: torch.randn(batch, s.channels, -(-size // s.stride), -(-size // s.stride)) for n, s in SHAPES.items()}


@pytest.mark.parametrize("options", [{}, {"lite": True, "norm": "bn"}, {"norm": "gn"}], ids=["full", "lite", "norm"])
@pytest.mark.parametrize("size", [64, 65, 300])
def test_halved_levels_are_as_declared(options: Any, size: int) -> None:
    neck = SSDExtraLevels(in_shapes=SHAPES, channels=[16, 8, 4], strides=[2, 2, 2], **options).eval()
    given = features(size)
    out = neck(given)
    assert list(out) == list(neck.out_shapes) == ["c3", "c4", "extra1", "extra2", "extra3"]
    assert [s.stride for s in neck.out_shapes.values()] == [8, 16, 32, 64, 128]
    for name, shape in neck.out_shapes.items():
        side = -(-size // shape.stride)
        assert out[name].shape == (1, shape.channels, side, side)
    assert out["c3"] is given["c3"]


def test_ssd300_goes_down_to_one_cell() -> None:
    neck = SSDExtraLevels(in_shapes=SHAPES, channels=[8, 4, 4, 4], strides=[2, 2, 1, 1])
    assert [x.shape[-1] for x in neck(features(300)).values()] == [38, 19, 10, 5, 3, 1]
    # A map of one cell would have no room for the kernel.
    assert [x.shape[-1] for x in neck(features(64)).values()] == [8, 4, 2, 1, 1, 1]


@pytest.mark.parametrize("lite", [False, True])
def test_every_weight_learns(lite: bool) -> None:
    torch.manual_seed(0)
    neck = SSDExtraLevels(in_shapes=SHAPES, channels=[8, 8], strides=[2, 1], lite=lite, norm="bn")
    sum(x.square().sum() for x in neck(features(160, batch=2)).values()).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("channels", "strides"),
    [([8], [2, 2]), ([8], [3]), ([1], [2])],
    ids=["length", "stride", "width"],
)
def test_senseless_levels_are_refused(refuses: Refuses, channels: list[int], strides: list[int]) -> None:
    with refuses(ValueError):
        SSDExtraLevels(in_shapes=SHAPES, channels=channels, strides=strides)
