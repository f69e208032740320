import math
from typing import Any

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.losses.iou import SIoULoss, angle_cost
from tests.refusals import Refuses

ANCHOR = torch.tensor([[0.0, 0, 10, 10]])


def paper(iou: Any, dx: Any, dy: Any, hull: Any, mine: Any, true: Any, theta: float = 4.0) -> Any:
    """Equations 1 to 12 of the paper, with its case for angles above 45 degrees."""
    way = math.hypot(dx, dy)
    x = min(abs(dy), abs(dx)) / way if way else 0.0
    angle = 1 - 2 * math.sin(math.asin(x) - math.pi / 4) ** 2
    gamma = 2 - angle
    distance = sum(1 - math.exp(-gamma * (d / side) ** 2) for d, side in zip((dx, dy), hull, strict=True))
    omega = [abs(m - t) / max(m, t) for m, t in zip(mine, true, strict=True)]
    shape = sum((1 - math.exp(-o)) ** theta for o in omega)
    return 1 - iou + (distance + shape) / 2


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Same shape, moved by (3, 4): 7 x 6 in common, hull 13 x 14.
        ([3.0, 4, 13, 14], paper(42 / 158, 3, 4, (13, 14), (10, 10), (10, 10))),
        # Twice as tall, centre (8, 14) against (5, 5), so the way is steep: 7 x 6 in common, hull 13 x 24.
        ([3.0, 4, 13, 24], paper(42 / 258, 3, 9, (13, 24), (10, 10), (10, 20))),
        ([20.0, 0, 30, 10], paper(0, 20, 0, (30, 10), (10, 10), (10, 10))),
        ([-5.0, -5, 15, 15], paper(1 / 4, 0, 0, (20, 20), (10, 10), (20, 20))),
    ],
)
def test_by_the_papers_equations(box: list[float], expected: Any) -> None:
    found = SIoULoss()(torch.zeros(1, 4), ANCHOR, torch.tensor([box]), DeltaCoder())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_by_numbers() -> None:
    # The first case above, worked out on paper: angle 0.96, gamma 1.04, distance 0.0539 + 0.0814, no shape cost.
    found = SIoULoss()(torch.zeros(1, 4), ANCHOR, torch.tensor([[3.0, 4, 13, 14]]), DeltaCoder())
    assert found.item() == pytest.approx(1 - 42 / 158 + (0.0539 + 0.0814) / 2, abs=1e-4)


def test_the_angle_costs_nothing_on_an_axis_and_most_on_a_diagonal() -> None:
    offsets = torch.tensor([[3.0, 0], [0, -2], [5, 5], [-1, 1], [0, 0], [3, 4]], requires_grad=True)
    torch.testing.assert_close(angle_cost(offsets).detach(), torch.tensor([0.0, 0, 1, 1, 0, 0.96]))
    angle_cost(offsets).sum().backward()
    assert offsets.grad.isfinite().all()


def test_theta_below_one_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        SIoULoss(theta=0.5)
