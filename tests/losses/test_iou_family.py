"""Alpha-IoU, MPDIoU, Shape-IoU, Powerful-IoU and the Wasserstein distance: by hand, as identities, against copies."""

import math
from typing import Any

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.losses.iou import DIoULoss, IoULoss, SIoULoss
from detkit.losses.iou_family import AlphaIoULoss, MPDIoULoss, PIoULoss, ShapeIoULoss
from detkit.losses.wasserstein import NWDLoss, wasserstein_distance
from tests.losses.test_iou import ANCHOR, BESIDE, LONGER, pairs
from tests.refusals import Refuses

ONE, TWO = 2 - 0.5 - math.exp(-(0.125**2)), 2 - 0.5 - math.exp(-(0.25**2))
TALL = [0.0, 0, 10, 20]


def focus(x: float) -> float:
    return 3 * x * math.exp(-x * x)


@pytest.mark.parametrize(
    ("loss", "box", "expected"),
    [
        (AlphaIoULoss(), LONGER, 1 - 0.5**3),
        (AlphaIoULoss(alpha=0.5), LONGER, 1 - 0.5**0.5),
        (AlphaIoULoss(alpha=0.5), BESIDE, 1.0),
        # The bottom right corners are 10 apart; the image's diagonal is 50, that of the hull sqrt(500).
        (MPDIoULoss(height=30, width=40), LONGER, 0.5 + 100 / 2500),
        (MPDIoULoss(height=30, width=40), BESIDE, 1 + 800 / 2500),
        (ShapeIoULoss(), LONGER, 0.5 + 25 / 500 + (1 - math.exp(-1 / 2)) ** 4 / 2),
        # ww = 4/3 and hh = 2/3: the error is along the long side, so it costs less.
        (ShapeIoULoss(scale=1.0), LONGER, 0.5 + 2 / 3 * 25 / 500 + (1 - math.exp(-1 / 3)) ** 4 / 2),
        (ShapeIoULoss(scale=1.0), TALL, 0.5 + 2 / 3 * 25 / 500 + (1 - math.exp(-1 / 3)) ** 4 / 2),
        # One edge of four is off, by half of the true width.
        (PIoULoss(version="v1"), LONGER, ONE),
        (PIoULoss(), LONGER, focus(1.3 * math.exp(-0.125)) * ONE),
        (PIoULoss(focus=2.0), LONGER, focus(2 * math.exp(-0.125)) * ONE),
        # Centres are 5 apart, half widths too.
        (NWDLoss(size=10.0), LONGER, 1 - math.exp(-math.sqrt(25 + 25) / 10)),
        (NWDLoss(), BESIDE, 1 - math.exp(-20 / 12.7)),
    ],
)
def test_by_hand(loss: Any, box: Any, expected: Any) -> None:
    """The predicted box is the anchor."""
    found = loss(torch.zeros(1, 4), ANCHOR, torch.tensor([box]), DeltaCoder())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def same(a: Any, b: Any, x: Any) -> None:
    """Value and gradient of two costs are the same."""
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(*(torch.autograd.grad(costs.sum(), x)[0] for costs in (a, b)))


def leaf() -> Any:
    a, b = pairs(torch.float64)
    return a.requires_grad_(), b


def test_alpha_one_is_iou() -> None:
    a, b = leaf()
    same(AlphaIoULoss(alpha=1.0).costs(a, b), IoULoss().costs(a, b), a)


def test_alpha_above_one_moves_the_gradient_to_good_boxes() -> None:
    iou = torch.linspace(0.05, 0.95, 19)
    side = (10 * iou).requires_grad_()
    predicted = torch.stack((iou * 0, iou * 0, side, iou * 0 + 10), dim=1)
    slope = torch.autograd.grad(AlphaIoULoss().costs(predicted, ANCHOR.repeat(19, 1)).sum(), side)[0]
    torch.testing.assert_close(slope, -3 * iou**2 / 10)


def test_mpdiou_of_boxes_of_equal_size_is_twice_the_squared_distance_over_the_images_diagonal() -> None:
    a, _ = leaf()
    b = a.detach() + torch.tensor([3.0, -4, 3, -4])
    expected = IoULoss().costs(a, b) + 2 * (5 / 50) ** 2
    torch.testing.assert_close(MPDIoULoss(height=30, width=40).costs(a, b), expected)


def test_mpdiou_divides_by_the_image_and_not_by_the_hull() -> None:
    """Copies divide by the diagonal of the hull, which makes the loss one of boxes of any scale, or by 2."""
    a, b = leaf()
    small, large = (MPDIoULoss(height=side, width=side).costs(a, b) - IoULoss().costs(a, b) for side in (64, 640))
    torch.testing.assert_close(small, 100 * large)
    near = (MPDIoULoss(height=64, width=64).costs(7 * a, 7 * b) - IoULoss().costs(a, b)) / 49
    torch.testing.assert_close(near, small)


def test_shape_iou_without_a_scale_is_diou_and_half_the_shape_cost_of_siou() -> None:
    a, b = leaf()
    offset = (b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]) / 2
    onto = torch.cat((a[:, :2] + offset, a[:, 2:] + offset), dim=1)  # concentric, so that SIoU's distance is 0
    shape = SIoULoss().costs(onto, b) - IoULoss().costs(onto, b)
    same(ShapeIoULoss().costs(a, b), DIoULoss().costs(a, b) + shape, a)


def test_shape_iou_weighs_by_the_true_box_and_an_error_along_its_short_side_costs_more() -> None:
    true = torch.tensor([[0.0, 0, 40, 10]])
    along, across = true + torch.tensor([2.0, 0, 2, 0]), true + torch.tensor([0.0, 2, 0, 2])
    for scale in (0.5, 1.0, 2.0):
        loss = ShapeIoULoss(scale=scale)
        distance = [(loss.costs(box, true) - IoULoss().costs(box, true)).item() for box in (along, across)]
        # ww / hh is the ratio of the sides to the power; the hulls are 42 x 10 and 40 x 12.
        assert distance[1] * (40**2 + 12**2) / (distance[0] * (42**2 + 10**2)) == pytest.approx(4**scale, rel=1e-4)


def test_powerful_iou_divides_by_the_true_box_so_that_growing_does_not_help() -> None:
    """With the hull as divisor, as in EIoU, a larger box lowers its own distance."""
    true = torch.tensor([[0.0, 0, 10, 10]])
    grown = torch.stack([torch.tensor([30 - s, 0.0, 40 + s, 10]) for s in (0.0, 5.0, 10.0)])
    costs = PIoULoss(version="v1").costs(grown, true.repeat(3, 1)) + IoULoss().costs(grown, true.repeat(3, 1)) * 0
    penalties = -torch.log(2 - costs)
    torch.testing.assert_close(penalties, torch.tensor([60.0, 60.0, 60.0]).div(40).square())


def test_powerful_iou_v2_is_v1_times_its_factor_which_is_greatest_at_medium_quality() -> None:
    a, b = leaf()
    sides = (b[:, 2:] - b[:, :2]).repeat(1, 2)
    quality = torch.exp(-((a - b).abs() / sides).mean(dim=1))
    x = 1.3 * quality
    same(PIoULoss().costs(a, b), 3 * x * torch.exp(-x * x) * PIoULoss(version="v1").costs(a, b), a)
    factor = torch.tensor([focus(1.3 * q) for q in torch.linspace(0, 1, 1001).tolist()])
    assert factor.argmax() / 1000 == pytest.approx(1 / math.sqrt(2) / 1.3, abs=1e-3)


def test_the_wasserstein_distance_is_one_and_halves_the_sides() -> None:
    a, b = leaf()
    c = b.roll(1, dims=0)
    direct, detour = wasserstein_distance(a, c), wasserstein_distance(a, b) + wasserstein_distance(b, c)
    assert (direct <= detour + 1e-9).all()
    torch.testing.assert_close(wasserstein_distance(b, a), wasserstein_distance(a, b))
    larger = a + torch.tensor([-2.0, 0, 2, 0])
    torch.testing.assert_close(wasserstein_distance(a, larger), torch.full((len(a),), 2.0, dtype=torch.float64))
    moved = a + torch.tensor([3.0, 4, 3, 4])
    torch.testing.assert_close(wasserstein_distance(a, moved), torch.full((len(a),), 5.0, dtype=torch.float64))


def test_nwd_has_a_gradient_without_overlap_and_is_a_matter_of_scale() -> None:
    a, b = leaf()
    torch.testing.assert_close(NWDLoss(size=70.0).costs(7 * a, 7 * b), NWDLoss(size=10.0).costs(a, b))
    apart = IoULoss().costs(a, b) == 1
    assert apart.any()
    gradient = torch.autograd.grad(NWDLoss().costs(a, b).sum(), a)[0]
    assert gradient[apart].any(dim=1).all()


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (AlphaIoULoss, {"alpha": 0.0}),
        (MPDIoULoss, {"height": 0, "width": 640}),
        (ShapeIoULoss, {"scale": -1.0}),
        (PIoULoss, {"focus": 0.0}),
        (NWDLoss, {"size": 0.0}),
    ],
)
def test_senseless_arguments_are_named(refuses: Refuses, cls: Any, arguments: Any) -> None:
    with refuses(ValueError):
        cls(**arguments)
