"""Inner-IoU and Focaler-IoU over other losses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.config import ConfigError, load_config
from detkit.losses.iou import GIoULoss, IoULoss, WiseIoULoss
from detkit.losses.iou_wrappers import FocalerIoULoss, InnerIoULoss
from detkit.registry import BOX_LOSSES
from tests.losses.test_iou import ANCHOR, LONGER, pairs
from tests.refusals import Refuses

QUICK = Path(__file__).parents[2] / "configs" / "quickstart" / "shapes.yaml"
IOU = {"type": "IoULoss"}
BASES = [{"type": name, **({"height": 48, "width": 64} if name == "MPDIoULoss" else {})}
         for name in ("IoULoss", "GIoULoss", "DIoULoss", "CIoULoss", "EIoULoss", "SIoULoss", "WiseIoULoss",
                      "AlphaIoULoss", "MPDIoULoss", "ShapeIoULoss", "PIoULoss", "NWDLoss")]  # fmt: skip


def test_every_loss_that_compares_boxes_is_tried_as_a_base() -> None:
    over_boxes = {name for name in BOX_LOSSES.names() if hasattr(BOX_LOSSES.get(name), "costs")}
    own = {name for name in over_boxes if BOX_LOSSES.get(name).__module__.startswith("detkit.")}
    assert own == {node["type"] for node in BASES} | {"InnerIoULoss", "FocalerIoULoss"}


@pytest.mark.parametrize("base", BASES, ids=lambda node: node["type"])
def test_without_a_change_of_the_iou_it_is_the_base(base: Any) -> None:
    a, b = pairs(torch.float64)
    a.requires_grad_()
    expected = BOX_LOSSES.build(base).costs(a, b)
    slope = torch.autograd.grad(expected.sum(), a)[0]
    for loss in (InnerIoULoss(base=base, ratio=1.0), FocalerIoULoss(base=base, lower=0.0, upper=1.0)):
        costs = loss.costs(a, b)
        torch.testing.assert_close(costs, expected)
        torch.testing.assert_close(torch.autograd.grad(costs.sum(), a)[0], slope)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Inner boxes: 5 x 5 at 2.5, 2.5 and 10 x 5 at 5, 2.5; 2.5 x 5 in common.
        (InnerIoULoss(base=IOU, ratio=0.5), 1 - 12.5 / 62.5),
        # Outer boxes: 15 x 15 within 30 x 15.
        (InnerIoULoss(base=IOU, ratio=1.5), 1 - 0.5),
        (InnerIoULoss(base={"type": "DIoULoss"}, ratio=0.5), 1 - 12.5 / 62.5 + 25 / 500),
        (FocalerIoULoss(base=IOU), 1 - 0.5 / 0.95),
        (FocalerIoULoss(base=IOU, lower=0.25, upper=0.75), 1 - 0.5),
        (FocalerIoULoss(base=IOU, lower=0.3, upper=0.7, weight=3.0), 3 * (1 - 0.5)),
        (FocalerIoULoss(base={"type": "DIoULoss"}, lower=0.4, upper=0.9), 1 - 0.1 / 0.5 + 25 / 500),
        (FocalerIoULoss(base=IOU, lower=0.6, upper=0.9), 1.0),
        (FocalerIoULoss(base=IOU, lower=0.1, upper=0.4), 0.0),
        (FocalerIoULoss(base={"type": "InnerIoULoss", "base": IOU, "ratio": 0.5}), 1 - 0.2 + 0.5 - 0.5 / 0.95),
    ],
)
def test_by_hand(loss: Any, expected: Any) -> None:
    """The predicted box is the anchor, of IoU 1/2 with the true one."""
    found = loss(torch.zeros(1, 4), ANCHOR, torch.tensor([LONGER]), DeltaCoder())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_boxes_are_scaled_about_their_own_centres() -> None:
    """A copy that scales about the origin, or both boxes about one centre, keeps the IoU of boxes apart."""
    a, b = pairs(torch.float64)
    for ratio in (0.5, 0.8, 1.3):
        shift = torch.tensor([500.0, 300, 500, 300])
        expected = InnerIoULoss(base=IOU, ratio=ratio).costs(a, b)
        torch.testing.assert_close(InnerIoULoss(base=IOU, ratio=ratio).costs(a + shift, b + shift), expected)
        concentric = b + (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).repeat(1, 2) / 2
        found = InnerIoULoss(base=IOU, ratio=ratio).costs(a, concentric)
        torch.testing.assert_close(found, IoULoss().costs(a, concentric))
        assert not torch.allclose(expected, IoULoss().costs(a, b))


def test_the_statistics_of_the_base_are_those_of_the_loss() -> None:
    loss, alone = InnerIoULoss(base={"type": "WiseIoULoss", "momentum": 0.5}), WiseIoULoss(momentum=0.5)
    given = (torch.zeros(1, 4), ANCHOR, torch.tensor([LONGER]), DeltaCoder())
    for _ in range(2):
        loss(*given)
        alone(*given)
        sums = loss.take_accumulated()
        assert sums.tolist() == alone.take_accumulated().tolist() == [0.5, 1]
        loss.end_step(sums)
        alone.end_step(sums)
    assert loss.state_dict() == {"base.mean": alone.mean}
    loss.eval()(*given)
    assert loss.take_accumulated().numel() == 0


def test_a_built_loss_is_taken_as_it_is() -> None:
    base = GIoULoss()
    assert FocalerIoULoss(base=base).base is base  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "node",
    [
        {"type": "InnerIoULoss", "base": {"type": "L1Loss"}},
        {"type": "FocalerIoULoss", "base": {"type": "CIoULoss", "weight": 2.0}},
        {"type": "InnerIoULoss", "base": {"type": "CIoULoss", "form": "log"}},
        {"type": "FocalerIoULoss", "base": IOU, "lower": 0.9, "upper": 0.5},
        {"type": "InnerIoULoss", "base": IOU, "ratio": 0.1},
        {"type": "InnerIoULoss"},
    ],
    ids=lambda node: "-".join(str(v) for v in node.values()),
)
def test_what_can_not_be_is_refused_by_a_config_too(refuses: Refuses, node: Any, tmp_path: Path) -> None:
    with refuses(ValueError):
        BOX_LOSSES.build(node)
    with refuses(ConfigError):
        load_config(QUICK, [f"losses.box={{{yaml_of(node)}}}"])


def yaml_of(node: Any) -> str:
    return ", ".join(f"{k}: {{{yaml_of(v)}}}" if isinstance(v, dict) else f"{k}: {v}" for k, v in node.items())


def test_a_config_fills_in_the_bases_defaults_and_overrides_reach_it() -> None:
    node = "losses.box={type: InnerIoULoss, base: {type: WiseIoULoss}}"
    box = load_config(QUICK, [node, "losses.box.base.momentum=0.25"]).losses.box
    assert (box.base.version, box.base.momentum, box.ratio) == ("v3", 0.25, 0.7)
    assert BOX_LOSSES.build(box).base.momentum == 0.25
