import math
from typing import Any

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.losses.iou import IoULoss, WiseIoULoss, distance_factor
from tests.refusals import Refuses

CODER = DeltaCoder()
ANCHOR = torch.tensor([[0.0, 0, 10, 10]])
LONGER = torch.tensor([[0.0, 0, 20, 10]])  # IoU 1/2; hull 20 x 10; 5 from centre to centre
R = math.exp(25 / 500)


def boxes(n: int = 50) -> Any:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, n, 2, generator=generator, dtype=torch.float64) * 20
    side = 1 + torch.rand(2, n, 2, generator=generator, dtype=torch.float64) * 30
    return torch.cat((corner, corner + side), 2).unbind(0)


def test_by_hand() -> None:
    zero = torch.zeros(1, 4)
    v1 = WiseIoULoss(version="v1")(zero, ANCHOR, LONGER, CODER)
    assert v1.item() == pytest.approx(R * 0.5, rel=1e-6)
    # The mean is 1 at the start, so the box is half as bad as the mean: b = 0.5.
    v2 = WiseIoULoss(version="v2")(zero, ANCHOR, LONGER, CODER)
    assert v2.item() == pytest.approx(R * 0.5 * 0.5**0.5, rel=1e-6)
    v3 = WiseIoULoss()(zero, ANCHOR, LONGER, CODER)
    assert v3.item() == pytest.approx(R * 0.5 * 0.5 / (3 * 1.9 ** (0.5 - 3)), rel=1e-6)


def test_v1_is_r_times_the_iou_loss_and_r_is_between_1_and_e() -> None:
    a, b = boxes()
    factor = distance_factor(a, b)
    torch.testing.assert_close(WiseIoULoss(version="v1").costs(a, b), factor * IoULoss().costs(a, b))
    assert (factor >= 1).all()
    assert (factor <= math.e).all()


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_hull_and_the_focus_are_constants_to_the_gradient(version: Any) -> None:
    a, b = boxes()
    loss, x = WiseIoULoss(version=version).double(), a.clone().requires_grad_()
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).square().sum(1)
    constant = 1.0 if version == "v1" else loss.focus(IoULoss().costs(a, b))
    way = ((x[:, :2] + x[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(1)
    expected = (constant * (way / hull).exp() * IoULoss().costs(x, b)).sum()
    found = loss.costs(x, b).sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(total, x)[0] for total in (found, expected)))


def test_the_factor_is_greatest_in_the_middle() -> None:
    loss = WiseIoULoss()
    r = loss.focus(torch.linspace(0, 20, 2001))
    # d r / d b = 0 at b = 1 / ln(alpha); at b = delta it is 1 by construction.
    assert 0.01 * r.argmax().item() == pytest.approx(1 / math.log(1.9), abs=0.01)
    assert loss.focus(torch.tensor(3.0)).item() == pytest.approx(1)
    assert r[0] == 0
    loss.mean.zero_()
    assert loss.focus(torch.tensor([0.0, 1.0])).tolist() == [0, 0]


def test_v2_grows_with_the_outlier_degree_and_is_v1_at_the_mean() -> None:
    loss = WiseIoULoss(version="v2", gamma=2.0)
    loss.mean.fill_(0.25)
    torch.testing.assert_close(loss.focus(torch.tensor([0.0, 0.125, 0.25, 0.5])), torch.tensor([0.0, 0.25, 1.0, 4.0]))


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_mean_moves_once_a_step_however_the_batch_is_divided(version: Any) -> None:
    a, b = (x.float() for x in boxes(8))
    cost = 1 - (1 - IoULoss().costs(a, b)).mean().item()
    for parts in (1, 2, 4):
        loss = WiseIoULoss(version=version, momentum=0.1)
        before = [loss.costs(*pair).sum() for pair in zip(a.chunk(parts), b.chunk(parts), strict=True)]
        assert loss.mean == 1
        loss.end_step(loss.take_accumulated())
        assert loss.mean.item() == pytest.approx(0.9 + 0.1 * cost, rel=1e-6)
        assert sum(before).item() == pytest.approx(WiseIoULoss(version=version).costs(a, b).sum().item(), rel=1e-5)
    assert loss.take_accumulated().shape == (0,)


def test_the_mean_stays_without_positives_and_outside_training() -> None:
    loss = WiseIoULoss(momentum=0.5)
    nothing = torch.zeros(0, 4)
    loss(nothing, nothing, nothing, CODER)
    sums = loss.take_accumulated()
    assert sums.tolist() == [0, 0]
    loss.end_step(sums)
    assert loss.mean == 1
    loss.eval()
    loss(torch.zeros(1, 4), ANCHOR, LONGER, CODER)
    assert loss.take_accumulated().shape == (0,)
    assert list(loss.state_dict()) == ["mean"]
    assert not WiseIoULoss(version="v1").state_dict()


@pytest.mark.parametrize(("key", "value"), [("alpha", 1.0), ("delta", 0.0), ("gamma", 0.0), ("momentum", 0.0)])
def test_senseless_arguments_are_named(refuses: Refuses, key: Any, value: Any) -> None:
    with refuses(ValueError):
        WiseIoULoss(**{key: value})
