"""Asymmetric loss: focal loss and cross-entropy at some settings, and by hand."""

import math

import pytest
import torch

from detkit.losses.asymmetric import AsymmetricLoss, negative_costs
from detkit.losses.bce import BCELoss
from detkit.losses.focal import SigmoidFocalLoss
from detkit.structures import BACKGROUND
from tests.losses.test_focal_family import both, example
from tests.refusals import Refuses


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_with_equal_gammas_and_no_margin_it_is_focal_loss(gamma: float) -> None:
    logits, labels = example()
    loss = AsymmetricLoss(gamma_positive=gamma, gamma_negative=gamma, margin=0.0)
    focal = SigmoidFocalLoss(alpha=None, gamma=gamma)
    torch.testing.assert_close(both(loss(logits, labels), logits), both(focal(logits, labels), logits))


def test_without_anything_it_is_cross_entropy() -> None:
    logits, labels = example()
    loss = AsymmetricLoss(gamma_positive=0.0, gamma_negative=0.0, margin=0.0)
    torch.testing.assert_close(both(loss(logits, labels), logits), both(BCELoss()(logits, labels), logits))


@pytest.mark.parametrize(
    ("p", "label", "expected"),
    [
        (0.25, 0, -math.log(0.25)),  # gamma_positive is 0
        (0.25, BACKGROUND, 0.2**4 * -math.log(0.8)),
        (0.55, BACKGROUND, 0.5**4 * -math.log(0.5)),
        (0.05, BACKGROUND, 0.0),
        (0.04, BACKGROUND, 0.0),
    ],
)
def test_by_hand(p: float, label: int, expected: float) -> None:
    logits = torch.logit(torch.tensor([[[p]]], dtype=torch.float64))
    assert AsymmetricLoss()(logits, torch.tensor([[label]])).item() == pytest.approx(expected, rel=1e-9)


def test_the_margin_drops_negatives_and_leaves_positives() -> None:
    logits = torch.logit(torch.tensor([[[0.04], [0.04], [0.06]]])).requires_grad_()
    gradient = both(AsymmetricLoss()(logits, torch.tensor([[BACKGROUND, 0, BACKGROUND]])), logits)[1]
    assert gradient[0, 0] == 0
    assert gradient[0, 1] == pytest.approx(-0.96)
    assert gradient[0, 2] > 0


def test_the_factor_has_a_gradient_too() -> None:
    """A factor that is a constant to the gradient, as in some copies, gives another one."""
    logits = torch.logit(torch.tensor([[[0.9]]], dtype=torch.float64)).requires_grad_()
    gradient = both(AsymmetricLoss()(logits, torch.tensor([[BACKGROUND]])), logits)[1].item()
    m = 0.85
    of_m = 4 * m**3 * -math.log(1 - m) + m**4 / (1 - m)
    assert gradient == pytest.approx(of_m * 0.9 * 0.1, rel=1e-9)
    assert gradient != pytest.approx(m**4 / (1 - m) * 0.9 * 0.1, rel=0.1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.5])
def test_single_precision_is_right_at_every_logit(gamma: float, margin: float) -> None:
    x = torch.cat((torch.linspace(-80, 80, 641), torch.tensor([-1e4, 1e4])))
    wide = negative_costs(x.double(), gamma, margin)
    for found, expected in zip(negative_costs(x, gamma, margin), wide, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize(
    ("argument", "value"), [("gamma_positive", -1.0), ("gamma_negative", -1.0), ("margin", 1.0), ("margin", -0.1)]
)
def test_senseless_arguments_are_named(refuses: Refuses, argument: str, value: float) -> None:
    with refuses(ValueError):
        AsymmetricLoss(**{argument: value})
