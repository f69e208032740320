"""Contracts of box weights, losses of the quality branch, and auxiliary losses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detkit.coders.base import BoxCoder
from detkit.coders.delta import DeltaCoder
from detkit.coders.distance import DistributionCoder
from detkit.structures import BACKGROUND, IGNORED, Positives
from detkit.testing.contract import Broken, Contract, Nest, Subject, TestedPart, expect, must_not_raise
from detkit.testing.memory import add_memory_checks

CLASSES, IMAGES, ANCHORS, COUNT = 3, 2, 40, 8
PROGRESSES = (0.0, 1.0)
"""Of the training, at which a term may count or not."""

check_box_weight = Contract("box_weights", "box weight")
check_quality_loss = Contract("quality_losses", "quality loss")
check_auxiliary_loss = Contract("auxiliary_losses", "auxiliary loss")


def _positives(count: int = COUNT, coder: BoxCoder | None = None, progress: float = 0.5) -> Positives:
    """Positives whose boxes contain their anchors' middles; predictions are near the truth, with graph."""
    coder = coder or DeltaCoder()
    corner = torch.rand(count, 2) * 100
    anchors = torch.cat((corner, corner + 40), dim=1)
    boxes = anchors + torch.rand(count, 4) * 12 - 6
    columns = coder.columns(coder.encode(boxes, anchors)).clamp(min=-20)
    deltas = (columns + 0.3 * torch.randn_like(columns)).requires_grad_()
    scores = torch.rand(count, CLASSES)
    return Positives(
        labels=torch.arange(count) % CLASSES,
        anchors=anchors,
        boxes=boxes,
        deltas=deltas,
        quality=torch.randn(count).requires_grad_(),
        target_quality=torch.rand(count),
        predicted=lambda: coder.decode(deltas, anchors),
        scores=lambda: scores,
        progress=progress,
        first=deltas * 0.9,
    )


def _rows(positives: Positives, rows: slice) -> Positives:
    """Some of the positives."""
    names = ("labels", "anchors", "boxes", "deltas", "quality", "target_quality", "first")
    parts = {name: getattr(positives, name)[rows] for name in names}
    return replace(
        positives,
        **parts,
        predicted=lambda: positives.predicted()[rows],
        scores=lambda: positives.scores()[rows],
    )


@check_box_weight.check("a weight below 0 would push boxes away, and NaN would end the run.")
def weights_are_not_negative(s: Subject) -> None:
    for count in (COUNT, 0):
        with torch.no_grad(), must_not_raise(f"weighing {count} positives"):
            weights = s.part(_positives(count))
        expect(tuple(weights.shape) == (count,), f"{count} positives get weights of shape {tuple(weights.shape)}")
        expect((weights.isfinite() & (weights >= 0)).all(), f"weights are {weights.tolist()[:4]}")


@check_box_weight.check("N ranks or micro-batches would weigh boxes otherwise than one.")
def weighs_each_positive_by_itself(s: Subject) -> None:
    positives = _positives()
    with torch.no_grad():
        whole = s.part(positives)
        parts = torch.cat([s.part(_rows(positives, rows)) for rows in (slice(0, 3), slice(3, None))])
    gap = float((whole - parts).abs().max())
    expect(gap <= 1e-5, f"weights differ by up to {gap:.3g} between a batch and its parts")


def _quality_inputs(positives: Positives) -> tuple[Tensor, Tensor, Positives]:
    """Logits (B, A) with graph, labels, and the positives with their logits among them."""
    labels = torch.full((IMAGES, ANCHORS), BACKGROUND)
    labels[:, -4:] = IGNORED
    first = len(positives) // 2
    labels[0, :first], labels[1, : len(positives) - first] = positives.labels[:first], positives.labels[first:]
    quality = torch.randn(IMAGES, ANCHORS).requires_grad_()
    image, row = (labels >= 0).nonzero(as_tuple=True)
    return quality, labels, replace(positives, quality=quality[image, row])


def _gradient(total: Tensor, of: Tensor) -> Tensor:
    expect(total.shape == (), f"the sum has shape {tuple(total.shape)}, not that of a scalar")
    expect(total.requires_grad, "the sum has no graph, so that backward() fails")
    found = torch.autograd.grad(total, of, allow_unused=True, retain_graph=True)[0]
    if found is None:
        raise Broken("the sum does not depend on the predictions")
    return found


@check_quality_loss.check("a batch without objects is common: it must not crash the step or hang the other ranks.")
def takes_a_batch_without_positives(s: Subject) -> None:
    quality, labels, positives = _quality_inputs(_positives(0))
    with must_not_raise("a batch without a positive"):
        total = s.part(quality, labels, positives)
    gradient = _gradient(total, quality)
    expect(total.isfinite() and gradient.isfinite().all(), "the sum or its gradient is not finite without a positive")


@check_quality_loss.check("objects in ignore regions would be taught as background.")
def ignored_anchors_teach_nothing(s: Subject) -> None:
    quality, labels, positives = _quality_inputs(_positives())
    gradient = _gradient(s.part(quality, labels, positives), quality)
    expect((gradient[labels == IGNORED] == 0).all(), "the gradient of an ignored anchor is not 0")
    expect(gradient[labels >= 0].abs().sum() > 0, "positives get no gradient")


@check_quality_loss.check("detections are ranked by these numbers, and thresholded.")
def combined_scores_are_scores(s: Subject) -> None:
    scores = torch.rand(ANCHORS, CLASSES)
    for size in (1.0, 1e4):
        quality = torch.randn(ANCHORS, 1) * size
        combined = s.part.combine(scores, quality)
        expect(combined.shape == scores.shape, f"combine gives {tuple(combined.shape)}, want {tuple(scores.shape)}")
        expect(((combined >= 0) & (combined <= 1)).all(), f"combined scores outside [0, 1] for logits of {size:g}")
    better = s.part.combine(scores, torch.full((ANCHORS, 1), 3.0)) >= s.part.combine(scores, torch.zeros(ANCHORS, 1))
    expect(better.all(), "a higher quality gives a lower score")


@check_quality_loss.check("N ranks or micro-batches would train another model than one.")
def quality_sum_adds_up_over_images(s: Subject) -> None:
    quality, labels, positives = _quality_inputs(_positives())
    total = float(s.part(quality, labels, positives))
    counts = (labels >= 0).sum(dim=1).tolist()
    pieces, start = [], 0
    for i, count in enumerate(counts):
        rows = slice(start, start + count)
        pieces.append(float(s.part(quality[i : i + 1], labels[i : i + 1], _rows(positives, rows))))
        start += count
    expect(abs(total - sum(pieces)) <= 1e-4 * max(1.0, abs(total)), f"the batch gives {total:.6g}, its images {pieces}")


def _coder_for(part: TestedPart) -> BoxCoder:
    """A coder that has what the loss needs."""
    return DistributionCoder(scale=0.1) if part.of_coder else DeltaCoder()


@check_auxiliary_loss.check("metrics, progress bar and reports show a term by its name.")
def has_a_name(s: Subject) -> None:
    expect(bool(s.part.name), "name is empty")


@check_auxiliary_loss.check("a batch without objects is common: it must not crash the step or hang the other ranks.")
def empty_gives_zero_with_a_graph(s: Subject) -> None:
    coder = _coder_for(s.part)
    for progress in PROGRESSES:
        positives = _positives(0, coder, progress)
        with must_not_raise("the sum over no positive"):
            total = s.part(positives, coder, torch.zeros(0) if s.part.weighted else None)
        _gradient(total, positives.deltas)
        expect(float(total.detach()) == 0, f"the sum over no positive is {float(total.detach())}")


@check_auxiliary_loss.check("N ranks or micro-batches would train another model than one.")
def sum_adds_up_over_positives(s: Subject) -> None:
    coder = _coder_for(s.part)
    for progress in PROGRESSES:
        positives = _positives(COUNT, coder, progress)
        weights = torch.rand(COUNT) if s.part.weighted else None
        total = s.part(positives, coder, weights)
        expect(_gradient(total, positives.deltas).isfinite().all(), "the gradient is not finite")
        pieces = [
            float(s.part(_rows(positives, rows), coder, None if weights is None else weights[rows]))
            for rows in (slice(0, 3), slice(3, None))
        ]
        gap = abs(float(total.detach()) - sum(pieces))
        expect(gap <= 1e-4 * max(1.0, abs(sum(pieces))), f"all give {float(total.detach()):.6g}, two parts {pieces}")


@check_auxiliary_loss.check("losses.box_weight would weigh nothing in this term, or something else than its costs.")
def weights_scale_the_term(s: Subject) -> None:
    if not s.part.weighted:
        return
    coder = _coder_for(s.part)
    positives = _positives(COUNT, coder, 1.0)
    once, twice = (float(s.part(positives, coder, torch.full((COUNT,), w))) for w in (1.0, 2.0))
    plain = float(s.part(positives, coder))
    expect(abs(once - plain) <= 1e-4 * abs(plain), f"weights of 1 give {once:.6g}, no weights {plain:.6g}")
    expect(abs(twice - 2 * once) <= 1e-4 * abs(twice), f"weights of 2 give {twice:.6g}, weights of 1 {once:.6g}")


def _weigh_call(s: Subject, part: TestedPart, k: int) -> Nest:
    with torch.no_grad():
        return [part(_positives(k % 5))]


def _stepped(part: TestedPart, total: Tensor, of: Tensor) -> list[Tensor]:
    if not part.training:
        return [total.detach()]
    gradient = torch.autograd.grad(total, of)[0]
    with torch.no_grad():
        part.end_step(part.take_accumulated())
    return [total.detach(), gradient]


def _quality_step(s: Subject, part: TestedPart, k: int) -> Nest:
    quality, labels, positives = _quality_inputs(_positives(k % 6))
    combined = part.combine(torch.rand(ANCHORS, CLASSES), torch.randn(ANCHORS, 1))
    return [*_stepped(part, part(quality, labels, positives), quality), combined]


def _auxiliary_step(s: Subject, part: TestedPart, k: int) -> Nest:
    coder = _coder_for(part)
    positives = _positives(k % 6, coder, k % 2)
    return _stepped(part, part(positives, coder), positives.deltas)


add_memory_checks(check_box_weight, _weigh_call)
add_memory_checks(check_quality_loss, _quality_step)
add_memory_checks(check_auxiliary_loss, _auxiliary_step)
