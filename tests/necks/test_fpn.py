from typing import Any

import pytest
import torch

from detkit.necks.fpn import FPN
from detkit.structures import FeatureShape
from tests.refusals import Refuses

SHAPES = {"c3": FeatureShape(8, 8), "c4": FeatureShape(12, 16), "c5": FeatureShape(16, 32)}


def features(size: Any) -> Any:
    return {n: torch.randn(1, s.channels, -(-size // s.stride), -(-size // s.stride)) for n, s in SHAPES.items()}


@pytest.mark.parametrize("extra_from", ["c5", "p5"])
@pytest.mark.parametrize("size", [64, 65, 200])
def test_levels_are_as_declared(extra_from: Any, size: int) -> None:
    neck = FPN(in_shapes=SHAPES, channels=4, extra_from=extra_from)
    out = neck(features(size))
    assert {n: s.stride for n, s in neck.out_shapes.items()} == {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
    for name, shape in neck.out_shapes.items():
        side = -(-size // shape.stride)
        assert out[name].shape == (1, 4, side, side)


def test_p6_is_made_of_what_it_says() -> None:
    source = features(64)
    for extra_from, changes in (("c5", True), ("p5", False)):
        neck = FPN(in_shapes=SHAPES, channels=4, extra_from=extra_from)  # type: ignore[arg-type]
        with torch.no_grad():
            neck.lateral["c5"].weight.zero_(), neck.lateral["c4"].weight.zero_(), neck.lateral["c3"].weight.zero_()
        # With all laterals at zero the pyramid is zero, so P6 lives only if it is made of C5.
        assert bool(neck(source)["p6"].abs().sum() > 0) is changes


def test_the_top_reaches_the_finest_level() -> None:
    neck = FPN(in_shapes=SHAPES, channels=4)
    source = features(64)
    before = neck(source)["p3"]
    source["c5"] = source["c5"] + 1
    assert not torch.allclose(before, neck(source)["p3"])


def test_norm_replaces_biases() -> None:
    neck = FPN(in_shapes=SHAPES, channels=32, norm="gn")
    assert neck.output["c3"][0].bias is None
    assert neck(features(64))["p7"].shape == (1, 32, 1, 1)


@pytest.mark.parametrize("bad", [{"channels": 0}, {"extra_levels": -1}])
def test_senseless_arguments_are_named(refuses: Refuses, bad: dict[str, Any]) -> None:
    with refuses(ValueError):
        FPN(in_shapes=SHAPES, **bad)
