from typing import Any

import pytest
import torch

from detkit.losses.bce import BCELoss
from detkit.losses.ghm import GHMCLoss, bins_of, count, signed_errors
from detkit.structures import BACKGROUND
from tests.refusals import Refuses


def both(loss: Any, logits: Any, labels: Any) -> Any:
    logits = logits.detach().requires_grad_()
    total = loss(logits, labels)
    return total.detach(), torch.autograd.grad(total, logits)[0]


def example(anchors: int = 50, columns: int = 3) -> Any:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, anchors, columns, generator=generator, dtype=torch.float64) * 2
    return logits, torch.randint(-2, columns, (2, anchors), generator=generator)


def test_uniform_gradient_density_is_cross_entropy() -> None:
    # One negative in the middle of each of ten bins: every density is N, so the weights are P / N.
    logits = torch.logit((torch.arange(10) + 0.5).double() / 10).view(1, 10, 1)
    labels = torch.full((1, 10), BACKGROUND)
    value, gradient = both(GHMCLoss(bins=10), logits, labels)
    expected = both(BCELoss(), logits, labels)
    torch.testing.assert_close((10 * value, 10 * gradient), expected)


def test_one_bin_is_cross_entropy_over_the_number_of_entries() -> None:
    logits, labels = example()
    entries, positives = 3 * (labels != -2).sum(), (labels >= 0).sum()
    value, gradient = both(GHMCLoss(bins=1), logits, labels)
    expected = both(BCELoss(), logits, labels)
    torch.testing.assert_close((value * entries / positives, gradient * entries / positives), expected)


def test_by_hand_a_crowd_of_easy_negatives_weighs_as_much_as_one_hard() -> None:
    # Errors 0.1 (8 negatives), 0.9 (a negative) and 0.9 (a positive); two bins of 8 and 2 entries; P = 1.
    logits = torch.logit(torch.tensor([0.1] * 8 + [0.9, 0.1], dtype=torch.float64)).view(1, 10, 1)
    labels = torch.tensor([[BACKGROUND] * 9 + [0]])
    value, gradient = both(GHMCLoss(bins=2), logits, labels)
    log = torch.log(torch.tensor([0.9, 0.1], dtype=torch.float64))
    assert value.item() == pytest.approx((8 * -log[0] / 8 + 2 * -log[1] / 2) / 2)
    expected = [0.1 / 16] * 8 + [0.9 / 4, -0.9 / 4]
    torch.testing.assert_close(gradient.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_the_gradient_is_that_of_weighted_cross_entropy() -> None:
    logits, labels = example()
    loss = GHMCLoss(bins=5)
    total, gradient = both(loss, logits, labels)
    errors = signed_errors(logits, labels)
    places = bins_of(errors, labels, 5)
    weight = torch.zeros_like(errors)
    for i in range(5):
        weight[places == i] = (labels >= 0).sum() / (5.0 * (places == i).sum())
    leaf = logits.clone().requires_grad_()
    cost = torch.nn.functional.softplus(torch.where(errors < 0, -leaf, leaf))
    expected = (weight * cost).sum()
    torch.testing.assert_close((total, gradient), (expected.detach(), torch.autograd.grad(expected, leaf)[0]))


def test_counts_move_once_a_step_and_the_past_weighs_by_momentum() -> None:
    logits, labels = example()
    loss = GHMCLoss(bins=4, momentum=0.75)
    assert (loss.average < 0).all()
    loss(logits[:1], labels[:1])
    loss(logits[1:], labels[1:])  # two micro-batches of a step
    loss.end_step(loss.take_accumulated())
    first = loss.average.clone()
    assert first[:-1].sum() == 3 * (labels != -2).sum()
    assert first[-1] == (labels >= 0).sum()
    loss.end_step(torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(loss.average, 0.75 * first)
    loss.end_step(torch.zeros(0, dtype=torch.float64))
    torch.testing.assert_close(loss.average, 0.75 * first)


def test_with_a_past_an_image_weighs_the_same_alone_and_in_a_batch() -> None:
    logits, labels = example()
    loss = GHMCLoss(bins=4)
    loss(logits, labels)
    loss.end_step(loss.take_accumulated())
    together = both(loss, logits, labels)
    alone = [both(loss, logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(alone[0][0] + alone[1][0], together[0])
    torch.testing.assert_close(torch.cat([alone[0][1], alone[1][1]]), together[1])


def test_a_bin_that_fills_up_at_once_does_not_explode() -> None:
    loss = GHMCLoss(bins=10)
    loss.end_step(torch.tensor([1000.0] + [0.0] * 9 + [10.0]))
    total = loss(torch.zeros(1, 500, 1), torch.full((1, 500), BACKGROUND))  # all at 0.5, where nothing ever was
    assert total.item() == pytest.approx(10 / 10 * 0.6931, rel=1e-3)


def test_a_certain_positive_is_still_a_positive() -> None:
    errors = signed_errors(torch.full((1, 1, 1), 200.0), torch.tensor([[0]]))
    assert errors.item() < 0
    value, gradient = both(GHMCLoss(), torch.full((1, 1, 1), 200.0), torch.tensor([[0]]))
    assert value == 0
    assert gradient.abs().item() < 1e-30


@pytest.mark.parametrize(("argument", "value"), [("bins", 0), ("bins", 255), ("momentum", 1.0), ("prior", 0.0)])
def test_senseless_arguments_are_named(refuses: Refuses, argument: Any, value: Any) -> None:
    with refuses(ValueError):
        GHMCLoss(**{argument: value})


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_bins_are_counted_without_the_unused(device: str) -> None:
    places = torch.tensor([[0, 2, 2, 255]], dtype=torch.uint8, device=device)
    assert count(places, 3).tolist() == [1, 0, 2]
