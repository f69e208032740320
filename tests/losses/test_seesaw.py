"""Seesaw loss: softmax at some settings, by hand, and its counts."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from detkit.losses.bce import BCELoss
from detkit.losses.seesaw import SeesawLoss
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

K = 4


def build(counts: Any = None, **arguments: Any) -> SeesawLoss:
    loss = SeesawLoss(**arguments)
    loss.num_columns(K)
    if counts is not None:
        loss.end_step(torch.tensor(counts, dtype=torch.float64))
    return loss


def example() -> Any:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 30, K + 1, generator=generator, dtype=torch.float64) * 2
    return logits.requires_grad_(), torch.randint(-2, K, (2, 30), generator=generator)


def both(total: Any, logits: Any) -> Any:
    return total.detach(), torch.autograd.grad(total, logits)[0]


def test_without_powers_it_is_softmax_at_positives_and_cross_entropy_of_the_objectness() -> None:
    logits, labels = example()
    positive = labels >= 0
    objectness = BCELoss()(logits[..., K:], labels.clamp(max=0))
    expected = F.cross_entropy(logits[positive][:, :K], labels[positive], reduction="sum") + objectness
    found = build([100, 1, 10, 0], p=0.0, q=0.0)(logits, labels)
    torch.testing.assert_close(both(found, logits), both(expected, logits))
    # Before the first step all classes are as frequent as each other.
    torch.testing.assert_close(build(q=0.0)(logits, labels), expected)


def classes_only(loss: SeesawLoss, z: Any, label: int) -> Any:
    """Cost of a certain object with class logits z, and its gradient."""
    logits = torch.tensor([[[*z, 60.0]]], dtype=torch.float64, requires_grad=True)
    return both(loss(logits, torch.tensor([[label]])), logits)


def test_mitigation_by_hand() -> None:
    loss = build([100, 10, 1000, 0], q=0.0)
    # Against class 0 the rarer ones press less, 10 / 100 and (at least 1) / 100; the more frequent one as ever.
    total, gradient = classes_only(loss, [0, 0, 0, 0], 0)
    pressed = 0.1**0.8 + 1 + 0.01**0.8
    assert total.item() == pytest.approx(math.log(1 + pressed))
    assert gradient[0, 0, 1].item() == pytest.approx(0.1**0.8 / (1 + pressed))
    # Against a rare class everything presses as ever: exchanging N_i and N_j would spare it the frequent classes.
    assert classes_only(loss, [0, 0, 0, 0], 3)[0].item() == pytest.approx(math.log(4))


def test_compensation_by_hand_is_of_the_wrong_classes_that_win() -> None:
    ln2 = math.log(2)
    total, gradient = classes_only(build(), [0, ln2, -ln2, 0], 0)
    # Class 1 is twice as likely: its e^z = 2 counts 2^2 times; class 2 is less likely and counts as ever.
    whole = 1 + 2 * 4 + 0.5 + 1
    assert total.item() == pytest.approx(math.log(whole))
    # S is a constant to the gradient, S_ij e^z_j / whole.
    expected = [1 / whole - 1, 8 / whole, 0.5 / whole, 1 / whole]
    torch.testing.assert_close(gradient[0, 0, :K], torch.tensor(expected, dtype=torch.float64))


def test_the_score_is_softmax_times_objectness_and_never_more() -> None:
    logits, _ = example()
    scores = build().scores(logits)
    torch.testing.assert_close(scores.sum(dim=-1), logits[..., K].sigmoid())
    assert scores.shape == (2, 30, K)


def test_a_background_anchor_teaches_the_objectness_alone() -> None:
    logits, labels = example()
    gradient = both(build([9, 1, 1, 1])(logits, labels), logits)[1]
    assert not gradient[labels == BACKGROUND][:, :K].any()
    assert gradient[labels == BACKGROUND][:, K].all()
    assert not gradient[labels == IGNORED].any()


def test_counts_are_those_before_the_step_however_it_is_divided() -> None:
    logits, labels = example()
    labels[0, :3] = 1
    numbers = labels[labels >= 0].bincount(minlength=K)
    for parts in (1, 2):
        loss = build()
        for step in (1, 2):
            totals = []
            for x, y in zip(logits.chunk(parts), labels.chunk(parts), strict=True):
                value = loss(x, y)
                fresh = build((step - 1) * numbers.double().numpy())
                torch.testing.assert_close(value, fresh(x, y))
                totals.append(loss.take_accumulated())  # as if each were a rank
            loss.end_step(torch.stack(totals).sum(dim=0))
            assert loss.counts.tolist() == (step * numbers).tolist()
    loss.end_step(torch.zeros(0, dtype=torch.float64))
    assert loss.counts.tolist() == (2 * numbers).tolist()


def test_a_hopeless_prediction_is_finite() -> None:
    """A quotient of softmax scores, which are 0 here, would need a smallest score and bound the compensation by it."""
    total, gradient = classes_only(build(), [-5000.0, 5000, 0, 0], 0)
    assert total.item() == pytest.approx(3 * 10000)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("argument", "value"), [("p", -0.1), ("q", -1.0), ("prior", 0.0)])
def test_senseless_arguments_are_named(refuses: Refuses, argument: str, value: float) -> None:
    with refuses(ValueError):
        SeesawLoss(**{argument: value})
