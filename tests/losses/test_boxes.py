"""What every box loss owes, and L1 and smooth L1 by hand."""

from typing import Any

import pytest
import torch

from detkit.coders.base import BoxCoder
from detkit.coders.delta import DeltaCoder
from detkit.losses.l1 import HuberLoss, L1Loss, SmoothL1Loss
from detkit.registry import BOX_LOSSES

CODER = DeltaCoder()
ANCHOR = torch.tensor([[0.0, 0, 10, 10]])
DELTA_SPACE = [{"type": "L1Loss"}, {"type": "SmoothL1Loss"}, {"type": "SmoothL1Loss", "beta": 0.0},
               {"type": "BalancedL1Loss"}, {"type": "BalancedL1Loss", "beta": 0.2}, {"type": "HuberLoss"}]  # fmt: skip
BOX_SPACE = [{"type": "IoULoss"}, {"type": "IoULoss", "form": "log"}, {"type": "GIoULoss"}, {"type": "DIoULoss"},
             {"type": "CIoULoss"}, {"type": "EIoULoss"}, {"type": "SIoULoss"}, {"type": "WiseIoULoss", "version": "v1"},
             {"type": "WiseIoULoss"}, {"type": "AlphaIoULoss"}, {"type": "AlphaIoULoss", "alpha": 0.5},
             {"type": "MPDIoULoss", "height": 480, "width": 640}, {"type": "ShapeIoULoss"},
             {"type": "ShapeIoULoss", "scale": 2.0}, {"type": "PIoULoss", "version": "v1"}, {"type": "PIoULoss"},
             {"type": "NWDLoss"}, {"type": "InnerIoULoss", "base": {"type": "CIoULoss"}},
             {"type": "InnerIoULoss", "base": {"type": "WiseIoULoss"}, "ratio": 1.25},
             {"type": "FocalerIoULoss", "base": {"type": "GIoULoss"}, "lower": 0.05}]  # fmt: skip
SAID = [node["type"] for node in DELTA_SPACE + BOX_SPACE]
OWN = [n for n in BOX_LOSSES.names() if BOX_LOSSES.get(n).__module__.startswith("detkit.")]
ALL = [*DELTA_SPACE, *BOX_SPACE, *({"type": name} for name in OWN if name not in SAID)]
WEIGHS_BY_A_CONSTANT = {"CIoULoss", "WiseIoULoss"}
"""Their gradient is on purpose not that of their value; tests of their own look at it."""
KNOWS_THE_SCALE = {"MPDIoULoss", "NWDLoss"}
KNOWS_THE_TRUE_BOX = {"PIoULoss", "ShapeIoULoss"}
LEAVES_BAD_BOXES = {"WiseIoULoss", "PIoULoss"}
"""With a factor that makes ordinary boxes weigh more than very bad ones."""


def name(node: Any) -> Any:
    return "-".join(name(v) if isinstance(v, dict) else str(v) for v in node.values())


def without(nodes: Any, names: Any) -> Any:
    """The nodes whose loss, and whose base if there is one, is not among the names."""
    return [node for node in nodes if not names & {node["type"], node.get("base", node)["type"]}]


@pytest.fixture(params=ALL, ids=name)
def loss(request: pytest.FixtureRequest) -> Any:
    return BOX_LOSSES.build(request.param)


class Raw(BoxCoder):
    """Deltas are boxes."""

    def encode(self, boxes: Any, anchors: Any) -> Any:
        return boxes

    def decode(self, deltas: Any, anchors: Any) -> Any:
        return deltas


def test_l1_and_smooth_l1_by_hand() -> None:
    # Target deltas are (1, 0, 0, 0); predicted (0.95, 0, 0, 2).
    box, deltas = torch.tensor([[10.0, 0, 20, 10]]), torch.tensor([[0.95, 0.0, 0.0, 2.0]])
    assert L1Loss()(deltas, ANCHOR, box, CODER).item() == pytest.approx(2.05)
    expected = 0.5 * 0.05**2 / 0.1 + (2 - 0.05)
    assert SmoothL1Loss(beta=0.1)(deltas, ANCHOR, box, CODER).item() == pytest.approx(expected)


def test_huber_by_hand_is_beta_times_smooth_l1() -> None:
    # Target deltas are (1, 0, 0, 0); predicted (0.95, 0, 0, 2).
    box, deltas = torch.tensor([[10.0, 0, 20, 10]]), torch.tensor([[0.95, 0.0, 0.0, 2.0]])
    found = HuberLoss(beta=0.1)(deltas, ANCHOR, box, CODER)
    assert found.item() == pytest.approx(0.05**2 / 2 + 0.1 * (2 - 0.05))
    for beta in (0.1, 0.5, 3.0):
        smooth = SmoothL1Loss(beta=beta, weight=beta)(deltas, ANCHOR, box, CODER)
        torch.testing.assert_close(HuberLoss(beta=beta)(deltas, ANCHOR, box, CODER), smooth)


def test_exact_costs_nothing_and_sums_add_up(loss: Any) -> None:
    box = torch.tensor([[2.0, 1, 9, 14]])
    exact = CODER.encode(box, ANCHOR)
    assert loss(exact, ANCHOR, box, CODER).item() == pytest.approx(0, abs=1e-6)
    off = exact + torch.tensor([[0.3, -0.2, 0.1, 0.4]])
    one = loss(off, ANCHOR, box, CODER)
    many = loss(off.repeat(3, 1), ANCHOR.repeat(3, 1), box.repeat(3, 1), CODER)
    torch.testing.assert_close(many, 3 * one)
    assert one > 0


def test_weight_scales_the_sum(loss: Any) -> None:
    box, off = torch.tensor([[2.0, 1, 9, 14]]), torch.tensor([[0.3, -0.2, 0.1, 0.4]])
    before = loss(off, ANCHOR, box, CODER)
    loss.weight = 3 * loss.weight
    torch.testing.assert_close(loss(off, ANCHOR, box, CODER), 3 * before)


def test_nothing_is_zero_with_a_graph(loss: Any) -> None:
    empty = torch.zeros(0, 4, requires_grad=True)
    total = loss(empty, torch.zeros(0, 4), torch.zeros(0, 4), CODER)
    total.backward()
    assert total == 0
    assert empty.grad is not None


def test_half_precision_is_computed_in_float32(loss: Any) -> None:
    box, off = torch.tensor([[2.0, 1, 9, 14]]), torch.tensor([[0.3, -0.2, 0.1, 0.4]]).bfloat16().requires_grad_()
    total = loss(off, ANCHOR, box, CODER)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, loss(off.detach().float(), ANCHOR, box, CODER))
    total.backward()
    assert off.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("node", [*without(ALL, LEAVES_BAD_BOXES), {"type": "WiseIoULoss", "version": "v1"},
                                  {"type": "PIoULoss", "version": "v1"}], ids=name)  # fmt: skip
def test_better_boxes_cost_less(node: Any) -> None:
    loss = BOX_LOSSES.build(node)
    # From half a side away to the place, growing to the right size.
    box = torch.tensor([[2.0, 1, 9, 14]])
    way = CODER.encode(box, ANCHOR) + torch.linspace(1, 0, 11)[:, None] * torch.tensor([0.2, -0.25, 0.3, -0.4])
    costs = [loss(step[None], ANCHOR, box, CODER).item() for step in way]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("node", without(ALL, WEIGHS_BY_A_CONSTANT), ids=name)
def test_gradcheck(node: Any) -> None:
    loss = BOX_LOSSES.build(node)
    generator = torch.Generator().manual_seed(0)
    deltas = (torch.randn(6, 4, generator=generator, dtype=torch.float64) * 0.3).requires_grad_()
    anchors = ANCHOR.double().repeat(6, 1)
    # The last one lies beside its anchor.
    shift = torch.tensor([[1.0, 2, 4, 5]] * 5 + [[25, 17, 30, 21]]).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, anchors, anchors + shift, CODER), (deltas,))


@pytest.mark.parametrize("node", without(BOX_SPACE, KNOWS_THE_SCALE), ids=name)
def test_box_losses_know_no_scale_and_no_place(node: Any) -> None:
    loss = BOX_LOSSES.build(node)
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(6, 4, generator=generator) * 0.4
    anchors = ANCHOR.repeat(6, 1) + torch.arange(6.0)[:, None]
    boxes = anchors + torch.tensor([1.0, 2, 4, 5])
    expected = loss(deltas, anchors, boxes, CODER)
    torch.testing.assert_close(loss(deltas, anchors * 7, boxes * 7, CODER), expected)
    torch.testing.assert_close(loss(deltas, anchors + 300, boxes + 300, CODER), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("node", without(BOX_SPACE, KNOWS_THE_TRUE_BOX), ids=name)
def test_either_box_may_be_the_predicted_one(node: Any) -> None:
    loss = BOX_LOSSES.build(node)
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 20], [40, 40, 60, 50]])
    b = torch.tensor([[3.0, 1, 12, 30], [0, 4, 5, 9], [0, 0, 10, 30]])
    torch.testing.assert_close(loss(a, a, b, Raw()), loss(b, a, a, Raw()))


@pytest.mark.parametrize("node", BOX_SPACE, ids=name)
@pytest.mark.parametrize(
    "box",
    [
        [5, 5, 5, 5], [5, 5, 5, 15], [5, 5, 15, 5], [9, 9, 1, 1], [9, 0, 1, 10], [1e5, 1e5, 1e5, 1e5],
        [-1e8, -1e8, 1e8, 1e8], [-1e30, 0, 1e30, 1e-30], [3e38, 3e38, 3e38, 3e38],
        [float("-inf"), 0, float("inf"), 1], [0, 0, 10, 10], [0, 0, 1e-20, 1e-20],
    ],
)  # fmt: skip
def test_whatever_is_predicted_value_and_gradient_are_finite(node: Any, box: list[Any]) -> None:
    loss = BOX_LOSSES.build(node)
    predicted = torch.tensor([box], dtype=torch.float32, requires_grad=True)
    total = loss(predicted, ANCHOR, ANCHOR, Raw())
    total.backward()
    assert total.isfinite()
    assert predicted.grad.isfinite().all()
    assert total.item() >= 0
    assert total.item() < 20 or node["type"] == "MPDIoULoss"  # whose distance is over the image, not over the hull
