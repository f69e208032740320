"""Softmax cross-entropy of positives and mined background."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.losses.mining import SoftmaxMiningLoss
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

B, I = BACKGROUND, IGNORED  # noqa: E741  (short names make the rows readable)


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 40, 4, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.full((2, 40), B)
    labels[0, :3], labels[0, 3:6] = torch.tensor([0, 2, 1]), I
    return logits, labels


def test_three_negatives_a_positive_by_hand() -> None:
    # Probability of background by its logit, against three classes at 0: e^x / (e^x + 3).
    background = torch.tensor([0.0, 5.0, 1.0, 3.0, -2.0, 4.0])
    logits = torch.cat((torch.zeros(6, 3), background[:, None]), dim=1)[None]
    labels = torch.tensor([[1, B, B, B, I, B]])

    def cost(x: float) -> float:
        return math.log(math.exp(x) + 3) - x

    positive = math.log(1 + 3)  # class 1 against background, all at 0
    # Least sure of background are those of 1, 3 and 4; the one of -2 is ignored.
    for ratio, hardest in ((3.0, (1.0, 3.0, 4.0)), (1.0, (1.0,)), (0.0, ())):
        total = SoftmaxMiningLoss(ratio=ratio, floor=0)(logits, labels)
        assert total.item() == pytest.approx(positive + sum(map(cost, hardest)), rel=1e-5)


def test_with_everything_taken_it_is_cross_entropy() -> None:
    logits, labels = example()
    target = torch.where(labels == B, 3, labels).flatten()
    expected = F.cross_entropy(logits.view(-1, 4), target, ignore_index=I, reduction="sum")
    found = SoftmaxMiningLoss(floor=40)(logits, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits))


def test_an_image_without_objects_still_teaches() -> None:
    logits, labels = example()
    empty = labels[1:]
    (gradient,) = torch.autograd.grad(SoftmaxMiningLoss(floor=5)(logits[1:], empty), logits)
    assert (gradient[1].abs().sum(dim=1) > 0).sum() == 5
    assert gradient[1, :, 3].sum() < 0  # towards background
    none = SoftmaxMiningLoss(floor=0)(logits[1:], empty)
    assert none == 0
    assert not torch.autograd.grad(none, logits)[0].any()


def test_a_batch_is_the_sum_of_its_images() -> None:
    logits, labels = example()
    loss = SoftmaxMiningLoss()
    apart = sum(loss(logits[i : i + 1], labels[i : i + 1]) for i in range(2))
    torch.testing.assert_close(loss(logits, labels), apart)


def test_ignored_and_unchosen_anchors_have_no_gradient() -> None:
    logits, labels = example()
    (gradient,) = torch.autograd.grad(SoftmaxMiningLoss(floor=0)(logits, labels), logits)
    moved = gradient.abs().sum(dim=2) > 0
    assert not moved[labels == I].any()
    assert moved[labels >= 0].all()
    assert moved.sum(dim=1).tolist() == [3 + 9, 0]


def test_gradcheck() -> None:
    logits, labels = example()
    assert torch.autograd.gradcheck(lambda x: SoftmaxMiningLoss()(x, labels), (logits,))


def test_starts_at_the_prior_and_the_last_column_is_background() -> None:
    loss = SoftmaxMiningLoss(prior=0.1)
    assert loss.num_columns(4) == 5
    scores = loss.scores(loss.initial_bias(4))
    torch.testing.assert_close(scores, torch.full((4,), 0.025))
    logits = torch.zeros(5)
    logits[4] = 50.0
    assert loss.scores(logits).sum() < 1e-10
    logits[2] = 100.0
    assert loss.scores(logits).argmax() == 2


def test_huge_logits_and_empty_input_stay_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]]], requires_grad=True)
    total = SoftmaxMiningLoss(floor=1)(logits, torch.tensor([[B, 0, I]]))
    assert total.item() == pytest.approx(4e4)
    total.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    empty = torch.zeros(1, 0, 3, requires_grad=True)
    SoftmaxMiningLoss()(empty, torch.zeros(1, 0, dtype=torch.int64)).backward()
    assert empty.grad is not None


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = example(torch.float32)
    half = logits.detach().to(torch.bfloat16).requires_grad_()
    total = SoftmaxMiningLoss()(half, labels)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, SoftmaxMiningLoss()(half.detach().float(), labels))


def test_weight_scales_the_sum() -> None:
    logits, labels = example()
    torch.testing.assert_close(SoftmaxMiningLoss(weight=3.0)(logits, labels), 3 * SoftmaxMiningLoss()(logits, labels))


@pytest.mark.parametrize(("argument", "value"), [("ratio", -1.0), ("floor", -1), ("prior", 1.0)])
def test_senseless_arguments_are_named(refuses: Refuses, argument: str, value: float) -> None:
    with refuses(ValueError):
        SoftmaxMiningLoss(**{argument: value})  # type: ignore[arg-type]


def test_labels_of_another_shape_are_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        SoftmaxMiningLoss()(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64))
