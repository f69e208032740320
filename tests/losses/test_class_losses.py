"""What every registered class loss owes the detector; a new one is tested by being registered."""

import math
from typing import Any

import pytest
import torch

from detkit.registry import CLASS_LOSSES
from detkit.structures import BACKGROUND, IGNORED
from tests.refusals import Refuses

K = 4
# Of detkit alone: a project may be imported in the same run, and has tests of its own.
OF_OTHERS = {"WarmupLoss"}
"""Made of two other losses; its contract runs in tests/contracts."""
OWN = [n for n in CLASS_LOSSES.names() if CLASS_LOSSES.get(n).__module__.startswith("detkit.")]
NAMES = [n for n in OWN if n not in OF_OTHERS]
each_loss = pytest.mark.parametrize("name", NAMES)
WEIGHS_BY_A_CONSTANT = {"SeesawLoss"}
"""Their gradient is on purpose not that of their value; tests of their own look at it."""


def build(name: Any) -> Any:
    loss = CLASS_LOSSES.get(name)()
    loss.num_columns(K)
    return loss


def example(loss: Any, dtype: Any = torch.float64, images: int = 3, anchors: int = 60, spread: float = 2.0) -> Any:
    generator = torch.Generator().manual_seed(1)
    columns = loss.num_columns(K)
    logits = (torch.randn(images, anchors, columns, generator=generator, dtype=torch.float64) * spread).to(dtype)
    labels = torch.randint(-6, K, (images, anchors), generator=generator).clamp(min=BACKGROUND)
    labels[:, ::7] = IGNORED
    quality = torch.rand(images, anchors, generator=generator) * (labels >= 0)
    return logits.requires_grad_(), labels, quality if loss.uses_quality else None


def gradient_of(loss: Any, logits: Any, labels: Any, quality: Any) -> Any:
    logits = logits.detach().requires_grad_()
    total = loss(logits, labels, quality)
    assert total.shape == ()
    return total.detach(), torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WEIGHS_BY_A_CONSTANT])
def test_gradcheck(name: Any) -> None:
    loss = build(name).eval()
    logits, labels, quality = example(loss, images=2, anchors=12)
    if loss.batch_wise:
        pytest.skip("weighs by counts of the batch, which no gradient goes through; has tests of its own")
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, quality), (logits,))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: Any, dtype: Any) -> None:
    loss = build(name).eval()
    logits, labels, quality = example(loss, dtype)
    total, gradient = gradient_of(loss, logits, labels, quality)
    wide_total, wide_gradient = gradient_of(loss, logits.float(), labels, quality)
    assert total.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(total, wide_total, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.float(), wide_gradient, rtol=1e-2, atol=1e-3)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits_stay_finite(name: Any, dtype: Any) -> None:
    loss = build(name)
    logits, labels, quality = example(loss, dtype)
    for sign in (1, -1):
        total, gradient = gradient_of(loss, logits.detach().sign() * 100 * sign, labels, quality)
        assert total.isfinite()
        assert gradient.isfinite().all()


@each_loss
def test_ignored_anchors_get_no_gradient_and_change_nothing(name: Any) -> None:
    loss = build(name)
    logits, labels, quality = example(loss)
    total, gradient = gradient_of(loss, logits, labels, quality)
    assert not gradient[labels == IGNORED].any()
    assert gradient[labels >= 0].abs().sum() > 0
    other = logits.detach().clone()
    other[labels == IGNORED] = 50.0
    loss.take_accumulated()
    torch.testing.assert_close(gradient_of(loss, other, labels, quality)[0], total)


@each_loss
@pytest.mark.parametrize("anchors", [0, 5])
def test_nothing_selected_keeps_the_graph(name: Any, anchors: int) -> None:
    loss = build(name)
    logits, _, quality = example(loss, anchors=anchors)
    labels = torch.full((3, anchors), IGNORED)
    quality = None if quality is None else torch.zeros(3, anchors)
    total, gradient = gradient_of(loss, logits, labels, quality)
    assert total == 0
    assert gradient.shape == logits.shape
    assert not gradient.any()


@each_loss
def test_an_image_without_objects_teaches(name: Any) -> None:
    loss = build(name)
    logits, labels, quality = example(loss, images=1)
    labels[:] = BACKGROUND
    quality = None if quality is None else torch.zeros(1, 60)
    total, gradient = gradient_of(loss, logits, labels, quality)
    assert (total > 0) != loss.needs_positives
    assert (gradient.abs().sum() > 0) != loss.needs_positives


@each_loss
def test_a_batch_sums_over_its_images(name: Any) -> None:
    loss = build(name).eval()
    if loss.batch_wise:
        pytest.skip("looks at the batch as a whole and says so")
    logits, labels, quality = example(loss)
    one_by_one = [
        gradient_of(loss, logits[i : i + 1], labels[i : i + 1], None if quality is None else quality[i : i + 1])
        for i in range(3)
    ]
    together = gradient_of(loss, logits, labels, quality)
    torch.testing.assert_close(sum(total for total, _ in one_by_one), together[0])
    torch.testing.assert_close(torch.cat([gradient for _, gradient in one_by_one]), together[1])


@each_loss
def test_starts_finite_at_the_prior(name: Any) -> None:
    loss = build(name)
    bias = loss.initial_bias(K)
    assert bias.shape == (loss.num_columns(K),)
    scores = loss.scores(bias)
    assert scores.shape == (K,)
    torch.testing.assert_close(scores, scores[:1].expand(K))
    # One sigmoid a class starts at the prior each; a softmax shares it out.
    columns = 1 if loss.num_columns(K) == K else K
    assert float(scores[0]) * columns == pytest.approx(loss.prior, rel=1e-4)
    labels = torch.full((2, 1000), BACKGROUND)
    labels[0, :3] = 1
    total, gradient = gradient_of(loss, bias.repeat(2, 1000, 1), labels, None)
    assert 0 < total < 1e4
    assert gradient.isfinite().all()


@each_loss
def test_a_step_against_the_gradient_lowers_the_loss(name: Any) -> None:
    loss = build(name).eval()
    logits, labels, quality = example(loss)
    total, gradient = gradient_of(loss, logits, labels, quality)
    after, _ = gradient_of(loss, logits - 1e-3 * gradient, labels, quality)
    assert after < total


@each_loss
def test_weight_scales_the_sum_and_senseless_priors_are_refused(refuses: Refuses, name: Any) -> None:
    loss, heavy = build(name), CLASS_LOSSES.get(name)(weight=3.0)
    logits, labels, quality = example(loss)
    torch.testing.assert_close(heavy(logits, labels, quality), 3 * loss(logits, labels, quality))
    with refuses(ValueError):
        CLASS_LOSSES.get(name)(prior=1.0)


@each_loss
def test_state_survives_a_checkpoint_and_always_gathers_as_many_numbers(name: Any) -> None:
    loss = build(name)
    logits, labels, quality = example(loss)
    loss(logits, labels, quality)
    first = loss.take_accumulated()
    loss(logits, torch.full_like(labels, IGNORED), None if quality is None else quality * 0)
    assert loss.take_accumulated().shape == first.shape
    loss.end_step(first)
    twin = build(name)
    twin.load_state_dict(loss.state_dict())
    torch.testing.assert_close(twin(logits, labels, quality), loss(logits, labels, quality), rtol=0, atol=0)
    loss.take_accumulated()
    loss.eval()(logits, labels, quality)
    assert loss.take_accumulated().numel() == 0


@each_loss
def test_labels_of_another_shape_are_refused(refuses: Refuses, name: Any) -> None:
    loss = build(name)
    with refuses(ValueError):
        loss(torch.zeros(2, 3, loss.num_columns(K)), torch.zeros(2, 4, dtype=torch.int64), None)


def test_the_prior_is_what_keeps_cross_entropy_small_at_the_start() -> None:
    bias = build("BCELoss").initial_bias(K)
    labels = torch.full((1, 1000), BACKGROUND)
    with_prior = build("BCELoss")(bias.repeat(1, 1000, 1), labels)
    without = CLASS_LOSSES.get("BCELoss")(prior=0.5)(torch.zeros(1, 1000, K), labels)
    assert without.item() == pytest.approx(4000 * math.log(2), rel=1e-5)
    assert with_prior.item() == pytest.approx(-4000 * math.log(0.99), rel=1e-4)
