"""Contracts of class losses, box losses and normalisers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detkit.coders.delta import DeltaCoder
from detkit.losses.base import can_weigh
from detkit.structures import BACKGROUND, IGNORED
from detkit.testing.contract import Broken, Contract, Nest, Subject, TestedPart, expect, must_not_raise, must_not_write
from detkit.testing.memory import add_memory_checks
from detkit.testing.modules import Largest

CLASSES, IMAGES, ANCHORS = 3, 3, 60
TIMES = 32
"""The largest tensor of a class loss over its logits, at most."""

check_class_loss = Contract("class_losses", "class loss")
check_box_loss = Contract("box_losses", "box loss")
check_normalizer = Contract("normalizers", "normalizer")


def _labels() -> Tensor:
    """(IMAGES, ANCHORS): five positives in the first image, three in the second, none in the last."""
    labels = torch.full((IMAGES, ANCHORS), BACKGROUND)
    labels[0, :5] = torch.tensor([0, 1, 2, 0, 1])
    labels[1, 10:13] = torch.tensor([2, 1, 0])
    labels[:, 20:24] = IGNORED
    return labels


def _logits(part: TestedPart, scale: float = 1.0) -> Tensor:
    return (torch.randn(IMAGES, ANCHORS, part.num_columns(CLASSES)) * scale).requires_grad_()


def _positives(count: int = 12) -> tuple[Tensor, Tensor]:
    """Anchors and true boxes that overlap them, (P, 4) each."""
    corner = torch.rand(count, 2) * 100
    anchors = torch.cat((corner, corner + 20 + 40 * torch.rand(count, 2)), dim=1)
    return anchors, anchors + torch.rand(count, 4) * 6 - 3


def _class_sum(part: TestedPart, logits: Tensor, labels: Tensor) -> Tensor:
    return _scalar(part(logits, labels, torch.where(labels >= 0, 0.7, 0.0) if part.uses_quality else None))


def _box_sum(part: TestedPart, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    return _scalar(part(deltas, anchors, boxes, DeltaCoder()))


def _scalar(total: Tensor) -> Tensor:
    expect(total.shape == (), f"the sum has shape {tuple(total.shape)}, not that of a scalar")
    return total


def _gradient(total: Tensor, of: Tensor) -> Tensor:
    expect(total.requires_grad, "the sum has no graph, so that backward() fails")
    gradient = torch.autograd.grad(total, of, allow_unused=True)[0]
    if gradient is None:
        raise Broken("the sum does not depend on the predictions")
    return gradient


def _expect_finite(total: Tensor, of: Tensor, when: str) -> None:
    finite = total.isfinite() and _gradient(total, of).isfinite().all()
    expect(finite, f"the sum ({float(total.detach())}) or its gradient is not finite {when}")


def _expect_additive(total: Tensor, parts: list[Tensor], hint: str = "", *, is_count: bool = False) -> None:
    total_value, values = float(total.detach()), [float(p.detach()) for p in parts]
    allowed = 1e-4 if is_count else 1e-4 * max(1.0, abs(total_value))
    expect(
        abs(total_value - sum(values)) <= allowed,
        f"the batch gives {total_value:.6g}, its parts {[round(v, 4) for v in values]}{hint}",
    )


def _random_class_sum(part: TestedPart, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The sum over random logits, and these."""
    logits = _logits(part, scale)
    return _class_sum(part, logits, _labels()), logits


def _random_box_sum(part: TestedPart, scale: float = 0.2) -> tuple[Tensor, Tensor]:
    """The sum over random deltas, and these."""
    anchors, boxes = _positives()
    deltas = (scale * torch.randn(len(boxes), 4)).requires_grad_()
    return _box_sum(part, deltas, anchors, boxes), deltas


def _add_finite_checks(contract: Contract, draw: Callable[..., tuple[Tensor, Tensor]], *scales: float) -> None:
    @contract.check("one wild prediction would end the run in NaN.")
    def finite_at_extreme_predictions(s: Subject) -> None:
        for scale in scales:
            _expect_finite(*draw(s.part, scale), f"for predictions of size {scale:g}")

    @contract.check("a config may hold any value within the bounds of an argument.")
    def finite_at_the_bounds_of_its_arguments(s: Subject) -> None:
        for argument, part in s.at_bounds():
            _expect_finite(*draw(part), f"with {argument}")


@check_class_loss.check("the head is built with num_columns class columns and that bias.")
def columns_and_bias_agree(s: Subject) -> None:
    for classes in (1, CLASSES, 80):
        columns = s.part.num_columns(classes)
        expect(isinstance(columns, int) and columns >= 1, f"num_columns({classes}) is {columns!r}")
        bias = s.part.initial_bias(classes)
        expect(tuple(bias.shape) == (columns,), f"initial_bias({classes}) is {tuple(bias.shape)}, want ({columns},)")
        expect(bias.isfinite().all(), f"initial_bias({classes}) is not finite: {bias.tolist()[:4]}")


@check_class_loss.check("detections are thresholded and ranked by these numbers.")
def scores_are_probabilities(s: Subject) -> None:
    for scale in (1.0, 1e4):
        scores = s.part.scores(_logits(s.part, scale).detach())
        want = (IMAGES, ANCHORS, CLASSES)
        expect(tuple(scores.shape) == want, f"scores are {tuple(scores.shape)}, want {want}")
        expect(((scores >= 0) & (scores <= 1)).all(), f"scores outside [0, 1] for logits of size {scale:g}")


@check_class_loss.check("the label k must be scored in column k of the scores.")
def scores_follow_the_loss(s: Subject) -> None:
    for k in range(CLASSES):
        labels = torch.full((1, ANCHORS), k)
        logits = torch.zeros(1, ANCHORS, s.part.num_columns(CLASSES), requires_grad=True)
        gradient = _gradient(_class_sum(s.part, logits, labels), logits)
        logits = logits.detach()
        better = s.part.scores(logits - gradient / gradient.abs().max().clamp(min=1e-12))
        gain = better - s.part.scores(logits)
        best = int(gain.mean(dim=(0, 1)).argmax())
        expect(best == k, f"learning label {k} raises the score of class {best} most")


@check_class_loss.check("thousands of background anchors would drown the first steps in a huge loss.")
def starts_at_its_prior(s: Subject) -> None:
    scores = s.part.scores(s.part.initial_bias(CLASSES)[None])[0]
    top = float(scores.max())
    expect(0 < top <= 0.5, f"the score of a class at the start is {top:.3g}, want at most 0.5")
    stated = s.part.start_score(CLASSES)
    if stated is not None:
        close = abs(top - stated) <= 1e-4
        expect(close, f"the score of a class at the start is {top:.4g}, start_score({CLASSES}) says {stated:.4g}")


@check_class_loss.check("a batch without objects is common and must neither crash nor be wasted.")
def learns_from_an_empty_batch(s: Subject) -> None:
    logits, labels = _logits(s.part), torch.full((IMAGES, ANCHORS), BACKGROUND)
    with must_not_raise("a batch without a positive"):
        total = _class_sum(s.part, logits, labels)
    _expect_finite(total, logits, "without a positive")
    learns = _gradient(_class_sum(s.part, logits, labels), logits).abs().sum() > 0
    if s.part.needs_positives:
        expect(not learns, "needs_positives is True, but there is a gradient without a positive")
        return
    expect(
        learns,
        "no gradient without a positive: an image without objects teaches nothing (set needs_positives = True if that "
        "is meant)",
    )


@check_class_loss.check("an image that is ignored altogether would crash the step or hang the other ranks.")
def ignored_alone_give_zero_with_a_graph(s: Subject) -> None:
    logits = _logits(s.part)
    total = _class_sum(s.part, logits, torch.full((IMAGES, ANCHORS), IGNORED))
    gradient = _gradient(total, logits)
    expect(float(total.detach()) == 0, f"the sum over ignored anchors is {float(total.detach()):.4g}, want 0")
    expect((gradient == 0).all(), "ignored anchors get a gradient")


@check_class_loss.check("objects in ignore regions would be taught as background.")
def ignored_anchors_get_no_gradient(s: Subject) -> None:
    logits, labels = _logits(s.part), _labels()
    gradient = _gradient(_class_sum(s.part, logits, labels), logits)
    expect((gradient[labels == IGNORED] == 0).all(), "the gradient of an ignored anchor is not 0")
    expect(gradient[labels >= 0].abs().sum() > 0, "positives get no gradient")


@check_class_loss.check("training would make the detector worse.")
def right_costs_less_than_wrong(s: Subject) -> None:
    labels = _labels().masked_fill(_labels() == IGNORED, BACKGROUND)
    logits = torch.zeros(IMAGES, ANCHORS, s.part.num_columns(CLASSES), requires_grad=True)
    gradient = _gradient(_class_sum(s.part, logits, labels), logits)
    step = 4 * gradient.sign()
    right, wrong = (float(_class_sum(s.part, (logits + k * step).detach(), labels)) for k in (-1, 1))
    expect(0 <= right < wrong, f"the sum is {right:.4g} after learning and {wrong:.4g} after its opposite")


@check_class_loss.check("N ranks or micro-batches would train another model than one.")
def sum_adds_up_over_images(s: Subject) -> None:
    if s.part.batch_wise:
        return
    logits, labels = _logits(s.part), _labels()
    parts = [_class_sum(s.part, logits[i : i + 1], labels[i : i + 1]) for i in range(IMAGES)]
    _expect_additive(_class_sum(s.part, logits, labels), parts, " (set batch_wise = True if that is meant)")


@check_class_loss.check("training with train.precision: bf16 or fp16 would end in NaN.")
def finite_in_bfloat16(s: Subject) -> None:
    logits = _logits(s.part).detach().bfloat16().requires_grad_()
    with must_not_raise("the sum over bfloat16 logits"):
        total = _class_sum(s.part, logits, _labels())
    _expect_finite(total, logits, "in bfloat16")


@check_class_loss.check("labels are used again, by the box loss and the normaliser.")
def inputs_are_left_alone(s: Subject) -> None:
    logits, labels = _logits(s.part), _labels()
    with must_not_write(logits=logits.detach(), labels=labels):
        _class_sum(s.part, logits, labels)


@check_class_loss.check("big images have 100k anchors and the loss must fit beside the network.")
def takes_100k_anchors(s: Subject) -> None:
    labels = torch.full((1, 100_000), BACKGROUND)
    labels[0, ::5000] = 1
    logits = torch.randn(1, 100_000, s.part.num_columns(CLASSES), requires_grad=True)
    with must_not_raise("the sum over 100k anchors"), Largest() as seen:  # type: ignore[no-untyped-call]
        total = _class_sum(s.part, logits, labels)
        _expect_finite(total, logits, "over 100k anchors")
    times = seen.bytes / logits.untyped_storage().nbytes()
    expect(times <= TIMES, f"a tensor {times:.0f} times as large as the logits of 100k anchors; {TIMES} is the limit")


@check_box_loss.check("the loss would pull predictions away from the truth.")
def perfect_boxes_cost_nothing(s: Subject) -> None:
    anchors, boxes = _positives()
    perfect = DeltaCoder().encode(boxes, anchors)
    best = float(_box_sum(s.part, perfect, anchors, boxes))
    expect(abs(best) <= 1e-3 * len(boxes), f"{len(boxes)} perfect boxes cost {best:.4g}, want 0")
    for offset in (0.05, -0.2):
        worse = float(_box_sum(s.part, perfect + offset, anchors, boxes))
        expect(worse > max(best, 0), f"deltas off by {offset} cost {worse:.4g}, perfect ones {best:.4g}")


@check_box_loss.check("a step along the gradient must bring boxes nearer.")
def gradient_points_to_the_truth(s: Subject) -> None:
    anchors, boxes = _positives()
    perfect = DeltaCoder().encode(boxes, anchors)
    deltas = (perfect + 0.1 * torch.randn_like(perfect)).requires_grad_()
    total = _box_sum(s.part, deltas, anchors, boxes)
    gradient = _gradient(total, deltas)
    expect((gradient.abs().sum(dim=1) > 0).all(), "a positive gets no gradient")
    after = float(_box_sum(s.part, (deltas - 0.01 * gradient / gradient.norm()).detach(), anchors, boxes))
    before = float(total.detach())
    expect(after < before, f"a small step against the gradient takes the sum from {before:.5g} to {after:.5g}")


@check_box_loss.check("a batch without objects is common: it must not crash the step or hang the other ranks.")
def empty_gives_zero_with_a_graph(s: Subject) -> None:
    deltas = torch.zeros(0, 4, requires_grad=True)
    with must_not_raise("the sum over no box"):
        total = _box_sum(s.part, deltas, torch.zeros(0, 4), torch.zeros(0, 4))
    expect(float(total.detach()) == 0, f"the sum over no box is {float(total.detach())}")
    _gradient(total, deltas)


@check_box_loss.check("N ranks or micro-batches would train another model than one.")
def sum_adds_up_over_boxes(s: Subject) -> None:
    anchors, boxes = _positives()
    deltas = 0.2 * torch.randn(len(boxes), 4)
    parts = [_box_sum(s.part, deltas[r], anchors[r], boxes[r]) for r in (slice(0, 5), slice(5, None))]
    _expect_additive(_box_sum(s.part, deltas, anchors, boxes), parts)


@check_box_loss.check("losses.box_weight would weigh nothing, or something else than the cost of each box.")
def weights_scale_the_cost_of_each_box(s: Subject) -> None:
    if not can_weigh(s.part):
        return  # then losses.box_weight is refused
    anchors, boxes = _positives()
    deltas, part = 0.2 * torch.randn(len(boxes), 4), s.part.eval()  # nothing is learnt about the boxes from here

    def total(weights: Tensor | None) -> float:
        return float(_scalar(part(deltas.clone(), anchors.clone(), boxes.clone(), DeltaCoder(), weights)))

    some = torch.rand(len(boxes)) * 2
    plain, ones, one, other = (total(w) for w in (None, torch.ones(len(boxes)), some, 2 - some))
    expect(abs(ones - plain) <= 1e-4 * abs(plain), f"weights of 1 give {ones:.6g}, no weights {plain:.6g}")
    both = one + other
    expect(abs(both - 2 * plain) <= 1e-4 * abs(plain), f"weights w and 2 - w give {both:.6g}, want {2 * plain:.6g}")


@check_box_loss.check("the same anchors and boxes are used again, and backward() fails with an error about versions.")
def inputs_stay_as_they_are(s: Subject) -> None:
    anchors, boxes = _positives()
    given = {"deltas": 0.2 * torch.randn(len(boxes), 4), "anchors": anchors, "boxes": boxes}
    with must_not_write(**given):
        _box_sum(s.part, **given)


def _counted(part: TestedPart, labels: Tensor | None = None) -> Tensor:
    """What a normaliser counts, by image: labels, or a quality for each positive (a weight is counted likewise)."""
    labels = _labels() if labels is None else labels
    return labels if part.counts == "labels" else torch.where(labels >= 0, 0.7, 0.0)


@check_normalizer.check("N ranks or micro-batches would divide by something else than one.")
def counts_add_up_over_images(s: Subject) -> None:
    values = _counted(s.part)
    total, parts = s.part(values), [s.part(values[i : i + 1]) for i in range(IMAGES)]
    for column in range(total.numel()):
        numbers = [part.reshape(-1)[column] for part in (total, *parts)]
        _expect_additive(numbers[0], numbers[1:], is_count=True)


@check_normalizer.check("a step without objects would divide by zero.")
def divisor_is_above_zero(s: Subject) -> None:
    shape = s.part(_counted(s.part)).shape
    for total in (0.0, 5.0, 0.0):
        divisor = s.part.divisor(torch.full(shape, total, dtype=torch.float64))
        expect(divisor.isfinite() and divisor > 0, f"divisor({total:g}) is {float(divisor)}")


@check_normalizer.check("an image without objects would weigh infinitely much.")
def image_weights_are_finite(s: Subject) -> None:
    weights = s.part.image_weights(_labels())
    if weights is not None:
        expect(tuple(weights.shape) == (IMAGES,), f"image_weights is {tuple(weights.shape)}, want ({IMAGES},)")
        expect((weights.isfinite() & (weights >= 0)).all(), f"image_weights is {weights.tolist()}")


@check_normalizer.check("the header of a run says what its losses are divided by.")
def says_what_it_divides_by(s: Subject) -> None:
    expect(bool(s.part.meaning), "meaning is empty")


EMPTY = 5
"""Of eight training steps, the one without an object."""


def _end_of_step(part: TestedPart, total: Tensor, of: Tensor) -> list[Tensor]:
    """Sum and gradients of a training step, with the loss's `end_step`; the sum alone in eval mode."""
    if not part.training:
        return [total.detach()]
    part.zero_grad()
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        part.end_step(part.take_accumulated())
    gradients = [of.grad, *(p.grad for p in part.parameters())]
    return [total.detach(), *(g for g in gradients if g is not None)]


def _class_step(s: Subject, part: TestedPart, k: int) -> Nest:
    labels = _labels().roll(k, dims=1)
    if k % 8 == EMPTY:
        labels = torch.full_like(labels, BACKGROUND)
    logits = _logits(part)
    return [*_end_of_step(part, _class_sum(part, logits, labels), logits), part.scores(logits.detach())]


def _box_step(s: Subject, part: TestedPart, k: int) -> Nest:
    anchors, boxes = _positives(0 if k % 8 == EMPTY else 4 + k % 9)
    deltas = (0.3 * torch.randn(len(boxes), 4)).requires_grad_()
    return _end_of_step(part, part(deltas, anchors, boxes, DeltaCoder()), deltas)


def _normalizer_step(s: Subject, part: TestedPart, k: int) -> Nest:
    labels = torch.where(torch.rand(IMAGES, ANCHORS) < (0.0 if k % 8 == EMPTY else 0.1), 1, BACKGROUND)
    with torch.no_grad():
        weights, total = part.image_weights(labels), part(_counted(part, labels))
        outputs = [total, *([] if weights is None else [weights])]
        return [*outputs, part.divisor(total.double())] if part.training else outputs


_add_finite_checks(check_class_loss, _random_class_sum, 30.0, 1e4)
_add_finite_checks(check_box_loss, _random_box_sum, 10.0, 1e3)
add_memory_checks(check_class_loss, _class_step, assemble=lambda part: part.num_columns(CLASSES))
add_memory_checks(check_box_loss, _box_step)
add_memory_checks(check_normalizer, _normalizer_step)
