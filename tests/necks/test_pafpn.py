from typing import Any

import pytest
import torch
from torch.nn import functional as F

from detkit.necks.fpn import FPN, PAFPN
from detkit.structures import FeatureShape
from tests.refusals import Refuses

SHAPES = {"c3": FeatureShape(8, 8), "c4": FeatureShape(12, 16), "c5": FeatureShape(16, 32)}


def features(size: Any) -> Any:
    return {n: torch.randn(2, s.channels, -(-size // s.stride), -(-size // s.stride)) for n, s in SHAPES.items()}


@pytest.mark.parametrize("extra_from", ["c5", "p5"])
@pytest.mark.parametrize(("size", "norm"), [(64, None), (75, "gn")])
def test_levels_are_as_declared_and_every_parameter_learns(extra_from: Any, size: int, norm: Any) -> None:
    neck = PAFPN(in_shapes=SHAPES, channels=4, extra_from=extra_from, norm=norm)
    out = neck(features(size))
    assert {n: s.stride for n, s in neck.out_shapes.items()} == {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
    for name, shape in neck.out_shapes.items():
        assert out[name].shape == (2, 4, -(-size // shape.stride), -(-size // shape.stride))
    sum(x.square().sum() for x in out.values()).backward()
    assert [n for n, p in neck.named_parameters() if p.grad is None] == []


def test_with_a_silent_way_up_it_is_the_rectified_pyramid() -> None:
    neck = PAFPN(in_shapes=SHAPES, channels=4, extra_levels=0)
    with torch.no_grad():
        for down, output in zip(neck.down, neck.output, strict=True):
            down.weight.zero_()
            output.weight.zero_()
            output.weight[range(4), range(4), 1, 1] = 1  # passes its input on
    source = features(64)
    fpn = FPN(in_shapes=SHAPES, channels=4, extra_levels=0)
    fpn.load_state_dict(neck.fpn.state_dict())
    want = fpn(source)
    out = neck(source)
    torch.testing.assert_close(out["p3"], want["p3"])
    torch.testing.assert_close(out["p4"], F.relu(want["p4"]))
    torch.testing.assert_close(out["p5"], F.relu(want["p5"]))


def test_the_finest_level_reaches_the_top() -> None:
    neck = PAFPN(in_shapes=SHAPES, channels=4)
    source = features(64)
    before = neck(source)["p5"]
    source["c3"] = source["c3"] + 1
    assert not torch.allclose(before, neck(source)["p5"])


@pytest.mark.parametrize("bad", [{"channels": 0}, {"extra_levels": -1}])
def test_senseless_arguments_are_named(refuses: Refuses, bad: dict[str, Any]) -> None:
    with refuses(ValueError):
        PAFPN(in_shapes=SHAPES, **bad)
