import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from detkit.losses.focal import SigmoidFocalLoss
from detkit.ops import sigmoid_focal_sum
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses


def example(dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, 40, 5, generator=generator) * 3).to(dtype).requires_grad_()
    return logits, torch.randint(IGNORED, 5, (2, 40), generator=generator)


def one_hot(labels: Any, columns: Any) -> Any:
    return F.one_hot(labels.clamp(min=0), columns) * (labels >= 0)[..., None]


def value_and_gradient(total: Any, logits: Any) -> Any:
    return total.detach(), torch.autograd.grad(total, logits)[0]


def test_one_positive_and_one_negative_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])  # p = 1/2 and 3/4
    total = sigmoid_focal_sum(logits, torch.tensor([0]), alpha=0.25, gamma=2.0)
    positive = -0.25 * 0.5**2 * math.log(0.5)
    negative = -0.75 * 0.75**2 * math.log(0.25)
    assert total.item() == pytest.approx(positive + negative, rel=1e-6)


def test_gamma_zero_is_binary_cross_entropy_gradient_included() -> None:
    logits, labels = example()
    used = labels != IGNORED
    reference = F.binary_cross_entropy_with_logits(logits[used], one_hot(labels, 5)[used].double(), reduction="sum")
    ours = value_and_gradient(sigmoid_focal_sum(logits, labels, alpha=None, gamma=0.0), logits)
    torch.testing.assert_close(ours, value_and_gradient(reference, logits))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
def test_equals_fvcore_gradient_included(alpha: float | None, gamma: float) -> None:
    from fvcore.nn import sigmoid_focal_loss

    logits, labels = example()
    used = labels != IGNORED
    reference = sigmoid_focal_loss(
        logits[used],
        one_hot(labels, 5)[used].double(),
        alpha=-1 if alpha is None else alpha,
        gamma=gamma,
        reduction="sum",
    )
    value, gradient = value_and_gradient(sigmoid_focal_sum(logits, labels, alpha, gamma), logits)
    # fvcore computes in float32 whatever it is given.
    torch.testing.assert_close(value.float(), reference.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(reference, logits)[0], rtol=1e-4, atol=1e-6)


def test_gradcheck() -> None:
    logits, labels = example()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_sum(x, labels, 0.25, 2.0), (logits,))


def test_ignored_anchors_have_no_value_and_no_gradient() -> None:
    logits, _ = example()
    total = sigmoid_focal_sum(logits, torch.full((2, 40), IGNORED), 0.25, 0.0)
    value, gradient = value_and_gradient(total, logits)
    assert value == 0
    assert not gradient.any()


def test_huge_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    total = sigmoid_focal_sum(logits, torch.tensor([1, BACKGROUND]), 0.25, 2.0)
    value, gradient = value_and_gradient(total, logits)
    # Wrong by 1e4 three times: as a missed positive (0.25) and as two false alarms (0.75 each).
    assert value.item() == pytest.approx((0.25 + 0.75 + 0.75) * 1e4)
    assert gradient.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = example(torch.float32)
    half = logits.detach().to(torch.bfloat16).requires_grad_()
    total = sigmoid_focal_sum(half, labels, 0.25, 2.0)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, sigmoid_focal_sum(half.detach().float(), labels, 0.25, 2.0))
    total.backward()
    assert half.grad.dtype == torch.bfloat16


def test_starts_at_the_prior_and_empty_input_keeps_its_graph() -> None:
    loss = SigmoidFocalLoss(prior=0.02)
    bias = loss.initial_bias(3)
    torch.testing.assert_close(loss.scores(bias), torch.full((3,), 0.02))
    empty = torch.zeros(1, 0, 3, requires_grad=True)
    loss(empty, torch.zeros(1, 0, dtype=torch.int64)).backward()
    assert empty.grad.shape == (1, 0, 3)


def test_weight_scales_the_sum() -> None:
    logits, labels = example()
    torch.testing.assert_close(SigmoidFocalLoss(weight=3.0)(logits, labels), 3 * SigmoidFocalLoss()(logits, labels))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("alpha", 1.5),
        ("gamma", -1.0),
        ("gamma", math.nan),
        ("gamma", math.inf),
        ("prior", 0.0),
        ("weight", -1.0),
        ("weight", math.nan),
    ],
)
def test_senseless_arguments_are_named(refuses: Refuses, argument: str, value: Any) -> None:
    with refuses(ValueError):
        SigmoidFocalLoss(**{argument: value})


def test_labels_of_another_shape_are_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        sigmoid_focal_sum(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64), 0.25, 2.0)
