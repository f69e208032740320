"""Poly, equalized, quality, varifocal and matchability-aware loss: focal loss or cross-entropy at some setting."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from detkit.losses.bce import BCELoss
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.focal_family import EqualizedFocalLoss, PolyFocalLoss, focal_family_sum, with_gradient
from detkit.losses.soft_targets import MatchabilityAwareLoss, QualityFocalLoss, VarifocalLoss
from detkit.ops import sigmoid_focal_sum
from detkit.structures import BACKGROUND
from tests.refusals import Refuses


def example(columns: int = 3) -> Any:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 40, columns, generator=generator, dtype=torch.float64) * 3
    return logits.requires_grad_(), torch.randint(-2, columns, (2, 40), generator=generator)


def both(total: Any, logits: Any) -> Any:
    return total.detach(), torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_without_epsilon_and_at_balance_it_is_focal_loss(alpha: float | None, gamma: float) -> None:
    logits, labels = example()
    focal = both(sigmoid_focal_sum(logits, labels, alpha, gamma), logits)
    torch.testing.assert_close(
        both(PolyFocalLoss(epsilon=0.0, alpha=alpha, gamma=gamma)(logits, labels), logits), focal
    )
    if gamma:
        torch.testing.assert_close(both(EqualizedFocalLoss(alpha=alpha, gamma=gamma)(logits, labels), logits), focal)


def test_epsilon_adds_the_first_term_of_the_polynomial() -> None:
    logits, labels = example()
    poly = PolyFocalLoss(epsilon=0.7, alpha=0.25)(logits, labels)
    p, own = logits.sigmoid(), labels.clamp(min=0)[..., None]
    negative, positive = (0.75 * p**3).sum(-1), (0.25 * (1 - p) ** 3 - 0.75 * p**3).gather(-1, own)[..., 0]
    extra = negative[labels != -2].sum() + positive[labels >= 0].sum()
    torch.testing.assert_close(both(poly, logits), both(SigmoidFocalLoss()(logits, labels) + 0.7 * extra, logits))


def test_poly_by_hand_and_its_term_vanishes_at_minus_one() -> None:
    total = PolyFocalLoss(epsilon=-1.0, alpha=None, gamma=0.0)(torch.zeros(1, 1, 1), torch.tensor([[0]]))
    assert total.item() == pytest.approx(math.log(2) - 0.5)
    nearly = torch.full((1, 1, 1), 7.0, dtype=torch.float64)
    wrong = 1 - torch.sigmoid(nearly).item()
    # -log(1 - w) - w begins with w^2 / 2.
    assert PolyFocalLoss(alpha=None, gamma=0.0)(nearly, torch.tensor([[0]])).item() == pytest.approx(
        wrong**2 / 2, rel=1e-2
    )


def test_gamma_and_factor_may_differ_by_column() -> None:
    logits, labels = example(2)
    gamma = torch.tensor([1.0, 3.0])
    total, sizes = focal_family_sum(logits, labels, 0.25, gamma, torch.tensor([1.0, 2.0]))
    first = sigmoid_focal_sum(logits[..., :1], labels.clamp(max=0).where(labels != 1, -1), 0.25, 1.0)
    second_labels = torch.where(labels == 1, 0, torch.where(labels == -2, -2, -1))
    second = sigmoid_focal_sum(logits[..., 1:], second_labels, 0.25, 3.0)
    value, gradient = both(first + 2 * second, logits)
    torch.testing.assert_close(both(total, logits), (value, gradient))
    torch.testing.assert_close(sizes[0], -gradient.clamp(max=0).sum((0, 1)))
    torch.testing.assert_close(sizes[1], gradient.clamp(min=0).sum((0, 1)))


def test_gradcheck_of_the_family() -> None:
    logits, labels = example()
    gamma, factor = torch.tensor([0.5, 2.0, 6.0]), torch.tensor([1.0, 2.0, 0.5])
    assert torch.autograd.gradcheck(lambda x: focal_family_sum(x, labels, 0.3, gamma, factor, 0.8)[0], (logits,))


def test_a_small_half_gradient_is_scaled_before_it_is_rounded() -> None:
    logits = torch.zeros(1, dtype=torch.float16, requires_grad=True)
    (with_gradient(logits, torch.zeros(()), torch.tensor([1e-9])) * 65536).backward()
    assert logits.grad.item() == pytest.approx(65536e-9, rel=1e-2)


def test_a_rare_class_gets_a_larger_gamma_by_hand() -> None:
    loss = EqualizedFocalLoss(scale=8.0, alpha=None, gamma=2.0)
    loss.num_columns(2)
    loss.end_step(torch.tensor([1.0, 5.0, 4.0, 5.0]))
    torch.testing.assert_close(loss.balance(), torch.tensor([0.25, 1.0], dtype=torch.float64))
    # Class 0: gamma = 2 + 8 * 0.75 = 8, factor 4; at p = 1/2.
    total = loss(torch.tensor([[[0.0, -1e4]]]), torch.tensor([[0]]))
    assert total.item() == pytest.approx(4 * 0.5**8 * math.log(2), rel=1e-5)


def test_equalized_counts_its_own_gradient_once_a_step() -> None:
    logits, labels = example()
    loss = EqualizedFocalLoss()
    _, gradient = both(loss(logits, labels), logits)
    loss.end_step(loss.take_accumulated())
    torch.testing.assert_close(loss.gradients.sum(), gradient.abs().sum())
    torch.testing.assert_close(loss.gradients[0], -gradient.clamp(max=0).sum((0, 1)))
    loss.end_step(torch.zeros(0, dtype=torch.float64))  # a step of which nobody trained changes nothing
    torch.testing.assert_close(loss.gradients.sum(), gradient.abs().sum())


def test_quality_one_makes_quality_focal_loss_unweighted_focal_loss() -> None:
    logits, labels = example()
    ones = (labels >= 0).float()
    focal = both(sigmoid_focal_sum(logits, labels, None, 2.0), logits)
    torch.testing.assert_close(both(QualityFocalLoss()(logits, labels, ones), logits), focal)
    torch.testing.assert_close(both(QualityFocalLoss()(logits, labels), logits), focal)


def test_beta_zero_is_cross_entropy_with_soft_targets() -> None:
    logits, labels = example()
    quality = torch.rand(2, 40, dtype=torch.float64) * (labels >= 0)
    target = F.one_hot(labels.clamp(min=0), 3) * quality[..., None]
    used = labels != -2
    expected = F.binary_cross_entropy_with_logits(logits[used], target[used], reduction="sum")
    torch.testing.assert_close(QualityFocalLoss(beta=0.0)(logits, labels, quality), expected)


def test_quality_focal_by_hand_and_no_pull_where_the_score_is_the_quality() -> None:
    logits = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[0]])
    total = QualityFocalLoss()(logits, positive, torch.tensor([[0.8]]))
    assert total.item() == pytest.approx(0.3**2 * math.log(2), rel=1e-6)
    for beta in (0.5, 1.0, 2.0):
        value, gradient = both(QualityFocalLoss(beta=beta)(logits, positive, torch.tensor([[0.5]])), logits)
        assert value.item() == pytest.approx(0, abs=1e-5)
        assert gradient.item() == pytest.approx(0, abs=1e-5)


def test_varifocal_negatives_are_focal_and_positives_are_not_weighted_down() -> None:
    logits, labels = example()
    background = labels.clamp(max=BACKGROUND)
    expected = 0.75 * sigmoid_focal_sum(logits, background, None, 2.0)
    torch.testing.assert_close(VarifocalLoss()(logits, background), expected)
    logits = torch.zeros(1, 1, 1)
    for q in (0.2, 0.5, 1.0):
        total = VarifocalLoss()(logits, torch.tensor([[0]]), torch.tensor([[q]]))
        assert total.item() == pytest.approx(q * math.log(2), rel=1e-6)


def test_varifocal_without_gamma_and_alpha_is_cross_entropy() -> None:
    logits, labels = example()
    torch.testing.assert_close(VarifocalLoss(alpha=1.0, gamma=0.0)(logits, labels), BCELoss()(logits, labels))


def test_varifocal_takes_a_positive_of_quality_zero_as_a_negative() -> None:
    logits, labels = example()
    total = VarifocalLoss(gamma=0.5)(logits, labels, torch.zeros(2, 40))
    expected = VarifocalLoss(gamma=0.5)(logits, torch.where(labels >= 0, BACKGROUND, labels))
    torch.testing.assert_close(both(total, logits), both(expected, logits))
    extreme = torch.tensor([[[-1e4]]], requires_grad=True)
    assert both(VarifocalLoss(gamma=0.5)(extreme, torch.tensor([[0]]), torch.zeros(1, 1)), extreme)[1].isfinite()


def test_matchability_aware_without_gamma_is_cross_entropy_and_of_quality_one_varifocal() -> None:
    logits, labels = example()
    quality = torch.rand(2, 40, dtype=torch.float64) * (labels >= 0)
    bare = MatchabilityAwareLoss(gamma=0.0)(logits, labels, quality)
    torch.testing.assert_close(both(bare, logits), both(BCELoss()(logits, labels), logits))
    ones = (labels >= 0).double()
    for gamma in (0.5, 1.5):
        expected = both(VarifocalLoss(alpha=1.0, gamma=gamma)(logits, labels, ones), logits)
        torch.testing.assert_close(both(MatchabilityAwareLoss(gamma=gamma)(logits, labels, ones), logits), expected)
        torch.testing.assert_close(both(MatchabilityAwareLoss(gamma=gamma)(logits, labels), logits), expected)


def test_matchability_aware_is_soft_cross_entropy_to_the_power_of_the_quality() -> None:
    logits, labels = example()
    quality = torch.rand(2, 40, dtype=torch.float64) * (labels >= 0)
    negatives = SigmoidFocalLoss(alpha=0.0, gamma=1.5)(logits, labels)
    own = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0][labels >= 0]
    soft = F.binary_cross_entropy_with_logits(own, quality[labels >= 0] ** 1.5, reduction="sum")
    torch.testing.assert_close(
        both(MatchabilityAwareLoss()(logits, labels, quality), logits), both(negatives + soft, logits)
    )


def test_matchability_aware_by_hand_does_not_weigh_a_bad_match_down() -> None:
    logits = torch.tensor([[[math.log(4)]]], dtype=torch.float64, requires_grad=True)  # p = 0.8
    positive, quality = torch.tensor([[0]]), torch.tensor([[0.25]], dtype=torch.float64)
    target = 0.25**1.5
    expected = -(target * math.log(0.8) + (1 - target) * math.log(0.2))
    total, gradient = both(MatchabilityAwareLoss()(logits, positive, quality), logits)
    assert total.item() == pytest.approx(expected)
    assert gradient.item() == pytest.approx(0.8 - target)
    # With varifocal loss's factor q it would be a quarter.
    assert both(VarifocalLoss()(logits, positive, quality), logits)[1].item() == pytest.approx(0.25 * (0.8 - 0.25))
    negative = MatchabilityAwareLoss()(logits, torch.tensor([[BACKGROUND]]))
    assert negative.item() == pytest.approx(0.8**1.5 * -math.log(0.2))


@pytest.mark.parametrize(
    ("cls", "argument", "value"),
    [
        (MatchabilityAwareLoss, "gamma", -1.0),
        (PolyFocalLoss, "epsilon", -1.5),
        (PolyFocalLoss, "alpha", 2.0),
        (PolyFocalLoss, "gamma", -1.0),
        (EqualizedFocalLoss, "gamma", 0.0),
        (EqualizedFocalLoss, "scale", -1.0),
        (QualityFocalLoss, "beta", -1.0),
        (VarifocalLoss, "alpha", -0.1),
        (VarifocalLoss, "gamma", -0.1),
    ],
)
def test_senseless_arguments_are_named(refuses: Refuses, cls: Any, argument: str, value: float) -> None:
    with refuses(ValueError):
        cls(**{argument: value})
