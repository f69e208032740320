from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detkit.necks.bifpn import BiFPN, Fusion, halve, halve_same
from detkit.structures import FeatureShape
from tests.refusals import Refuses

SHAPES = {"c3": FeatureShape(8, 8), "c4": FeatureShape(12, 16), "c5": FeatureShape(16, 32)}


def features(size: Any, shapes: Any = SHAPES) -> Any:
    return {n: torch.randn(2, s.channels, -(-size // s.stride), -(-size // s.stride)) for n, s in shapes.items()}


@pytest.mark.parametrize(("size", "norm", "extra"), [(64, "bn", 2), (75, "gn", 2), (65, "bn", 0)])
def test_levels_are_as_declared_and_every_parameter_learns(size: int, norm: Any, extra: int) -> None:
    neck = BiFPN(in_shapes=SHAPES, channels=4, layers=2, extra_levels=extra, norm=norm)
    out = neck(features(size))
    strides = [8, 16, 32, 64, 128][: 3 + extra]
    assert [s.stride for s in neck.out_shapes.values()] == strides
    assert list(out) == [f"p{i + 3}" for i in range(len(strides))]
    for name, shape in neck.out_shapes.items():
        assert out[name].shape == (2, 4, -(-size // shape.stride), -(-size // shape.stride))
    sum(x.square().sum() for x in out.values()).backward()
    assert [n for n, p in neck.named_parameters() if p.grad is None] == []


def test_fusion_by_hand() -> None:
    fusion = Fusion(2, 1, nn.BatchNorm2d, bias=False).eval()
    assert float(fusion.fractions().sum()) == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([3.0, 1.0]))
        fusion.depthwise.weight.zero_()[..., 1, 1] = 1
        fusion.pointwise.weight.fill_(1)
    fusion.norm = nn.Identity()
    a, b = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 3, 3)
    torch.testing.assert_close(fusion([a, b]), F.silu(0.75 * a + 0.25 * b), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        fusion.weight[1] = -5.0
    # A weight below zero takes its map out.
    torch.testing.assert_close(fusion.fractions(), torch.tensor([1.0, 0.0]), rtol=0, atol=1e-4)


def test_two_levels_see_each_other() -> None:
    shapes = {n: SHAPES[n] for n in ("c3", "c4")}
    neck = BiFPN(in_shapes=shapes, channels=4, layers=1, extra_levels=0).eval()
    source = features(64, shapes)
    before = neck(source)
    for changed, seen in (("c4", "p3"), ("c3", "p4")):
        other = neck(source | {changed: source[changed] + 1})
        assert not torch.allclose(before[seen], other[seen])


def test_halve_rounds_up_and_takes_the_greatest() -> None:
    out = halve(torch.arange(25.0).view(1, 1, 5, 5))
    assert out[0, 0].tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]


@pytest.mark.parametrize("bad", [{"channels": 0}, {"layers": 0}, {"extra_levels": -1}])
def test_senseless_arguments_are_named(refuses: Refuses, bad: dict[str, Any]) -> None:
    with refuses(ValueError):
        BiFPN(in_shapes=SHAPES, **bad)


def test_one_level_alone_can_not_be_fused(refuses: Refuses) -> None:
    with refuses(ValueError):
        BiFPN(in_shapes={"c4": SHAPES["c4"]}, extra_levels=0)


@pytest.mark.parametrize("size", [64, 75])
def test_as_published_the_levels_between_have_a_second_convolution(size: int) -> None:
    neck = BiFPN(in_shapes=SHAPES, channels=4, layers=2, published=True)
    assert list(neck.again) == ["c4", "c5"]
    out = neck(features(size))
    for name, shape in neck.out_shapes.items():
        assert out[name].shape == (2, 4, -(-size // shape.stride), -(-size // shape.stride))
    sum(x.square().sum() for x in out.values()).backward()
    assert [n for n, p in neck.named_parameters() if p.grad is None] == []


def test_as_published_pooling_pads_with_zeros_right_and_below() -> None:
    x = torch.full((1, 1, 4, 4), -1.0)
    assert halve_same(x)[0, 0].tolist() == [[-1, 0], [0, 0]]
    assert halve(x)[0, 0].tolist() == [[-1, -1], [-1, -1]]
