import math
from typing import Any

import pytest
import torch

from detkit.losses.l1 import BalancedL1Loss, balanced_l1
from tests.refusals import Refuses


def paper(x: Any, alpha: float = 0.5, gamma: float = 1.5) -> Any:
    """Equations 8 and 9 as they stand."""
    b = math.exp(gamma / alpha) - 1
    if abs(x) < 1:
        return alpha / b * (b * abs(x) + 1) * math.log(b * abs(x) + 1) - alpha * abs(x)
    return gamma * abs(x) + gamma / b - alpha


@pytest.mark.parametrize("x", [0.0, 0.01, -0.3, 0.999, 1.0, -1.001, 7.0])
def test_is_the_papers_formula(x: float) -> None:
    found = balanced_l1(torch.tensor(x, dtype=torch.float64), 0.5, 1.5, 1.0)
    assert found.item() == pytest.approx(paper(x), abs=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_its_gradient_is_the_promoted_one(beta: float) -> None:
    x = (torch.tensor([-4.0, -1, -0.5, -0.05, 0, 0.05, 0.5, 1, 4]).double() * beta).requires_grad_()
    gradient = torch.autograd.grad(balanced_l1(x, 0.5, 1.5, beta).sum(), x)[0]
    b = math.exp(3) - 1
    expected = (0.5 * torch.log(b * x.abs() / beta + 1)).clamp(max=1.5) * x.sign()
    torch.testing.assert_close(gradient, expected.detach())


@pytest.mark.parametrize("key", ["alpha", "gamma", "beta"])
def test_senseless_arguments_are_named(refuses: Refuses, key: str) -> None:
    with refuses(ValueError):
        BalancedL1Loss(**{key: 0.0})


def test_an_exponential_that_float32_can_not_hold_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        BalancedL1Loss(alpha=0.01)
