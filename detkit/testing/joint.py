"""The contract of joint losses, which are registered among the class losses and replace both losses (`JointLoss`)."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.coders.delta import DeltaCoder
from detkit.coders.distance import DistanceCoder
from detkit.structures import Losses, Predictions, Targets
from detkit.testing.contract import Broken, Contract, Nest, Subject, TestedPart, expect, must_not_raise, must_not_write
from detkit.testing.memory import add_memory_checks

CLASSES, CELLS, STRIDE = 3, 8, 16
ATTEMPTS = 3
"""Random predictions that are compared with right ones."""

check_joint_loss = Contract("joint_losses", "joint loss")


def _targets() -> list[Targets]:
    """Three images: two objects, one, none."""
    return [
        Targets(torch.tensor([[4.0, 6, 40, 44], [60, 50, 120, 110]]), torch.tensor([0, 2])),
        Targets(torch.tensor([[30.0, 20, 80, 90]]), torch.tensor([1])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]


def _anchors() -> Tensor:
    """(CELLS * CELLS, 4) squares of two strides around the cells of a map."""
    middle = (torch.arange(CELLS) + 0.5) * STRIDE
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    centers = torch.stack((x, y), dim=-1).view(-1, 2)
    return torch.cat((centers - STRIDE, centers + STRIDE), dim=1)


def _coder(part: TestedPart) -> BoxCoder:
    """A coder whose boxes the loss can use: deltas, else distances."""
    pred = _predictions(part, DeltaCoder())
    try:
        part.joint_losses(pred, _targets(), DeltaCoder())
    except ValueError:
        return DistanceCoder()
    return DeltaCoder()


def _predictions(part: TestedPart, coder: BoxCoder, scale: float = 1.0, images: int = 3) -> Predictions:
    """Random predictions, with graph; distances are positive, as a head's are."""
    anchors = _anchors()
    logits = scale * torch.randn(images, len(anchors), part.num_columns(CLASSES))
    deltas = scale * 0.3 * torch.randn(images, len(anchors), coder.num_columns)
    if isinstance(coder, DistanceCoder):
        deltas = deltas.abs() + 0.5
    return Predictions(logits.requires_grad_(), deltas.requires_grad_(), anchors, (len(anchors),))


def _image(pred: Predictions, image: int) -> Predictions:
    """The predictions of one image."""
    return replace(pred, logits=pred.logits[image : image + 1], deltas=pred.deltas[image : image + 1])


def _losses(part: TestedPart, pred: Predictions, targets: list[Targets], coder: BoxCoder) -> Losses:
    losses = part.joint_losses(pred, targets, coder)
    expect(isinstance(losses, Losses), f"joint_losses returns {type(losses).__name__}, not Losses")
    return losses  # type: ignore[no-any-return]


@check_joint_loss.check("the trainer adds up, divides and reports terms by their names.", vital=True)
def terms_and_divisors_agree(s: Subject) -> None:
    coder = _coder(s.part)
    with must_not_raise("the loss of three images"):
        losses = _losses(s.part, _predictions(s.part, coder), _targets(), coder)
    known = set(s.part.divisors())
    expect(losses.terms, "there is no term")
    expect(set(losses.normalizers) == known, f"normalizers are {sorted(losses.normalizers)}, divisors {sorted(known)}")
    for name, term in losses.terms.items():
        expect(term.shape == (), f"the term {name} has shape {tuple(term.shape)}, not that of a scalar")
        expect(losses.divisor_of(name) in known, f"the term {name} is divided by {losses.divisor_of(name)}, unknown")
    counted = [name for name, number in losses.normalizers.items() if number.requires_grad]
    expect(not counted, f"the normalizer {', '.join(counted)} has a graph")


@check_joint_loss.check("a parameter without a gradient hangs the other ranks.")
def every_output_gets_a_gradient(s: Subject) -> None:
    coder = _coder(s.part)
    for targets, what in ((_targets(), "with objects"), ([_targets()[2]] * 3, "without an object")):
        pred = _predictions(s.part, coder)
        with must_not_raise(f"a batch {what}"):
            total = _losses(s.part, pred, targets, coder).total()
            expect(total.requires_grad, f"the sum has no graph {what}")
            gradients = torch.autograd.grad(total, (pred.logits, pred.deltas), allow_unused=True)
        for name, gradient in zip(("logits", "deltas"), gradients, strict=True):
            expect(gradient is not None, f"the sum does not depend on the {name} {what}")
            expect(gradient is None or gradient.isfinite().all(), f"the gradient of {name} is not finite {what}")


@check_joint_loss.check("N ranks or micro-batches would train another model than one.")
def sums_add_up_over_images(s: Subject) -> None:
    coder = _coder(s.part)
    pred, targets = _predictions(s.part, coder), _targets()
    whole = _losses(s.part, pred, targets, coder)
    parts = [_losses(s.part, _image(pred, i), targets[i : i + 1], coder) for i in range(len(targets))]
    for kind in ("terms", "normalizers"):
        for name, value in getattr(whole, kind).items():
            alone = sum(getattr(part, kind)[name].detach() for part in parts)
            gap = float((value.detach() - alone).abs().max())
            expect(gap <= 1e-4 * max(1.0, float(value.detach().abs().max())),
                   f"{kind[:-1]} {name} differs by {gap:.3g} between a batch and its images")  # fmt: skip


@check_joint_loss.check("training would make the detector worse.")
def right_costs_less_than_random(s: Subject) -> None:
    coder, targets = _coder(s.part), _targets()
    right = _predictions(s.part, coder)
    logits, deltas = torch.full_like(right.logits, -6.0), right.deltas.detach().clone()
    for image, target in enumerate(targets):
        if not len(target.labels):
            continue
        overlap, match = box_ops.pairwise_iou(right.anchors, target.boxes).max(dim=1)
        near = overlap > 0.2
        encoded = coder.encode(target.boxes[match], right.anchors)
        deltas[image, near] = coder.columns(encoded)[near]
        logits[image, near, target.labels[match][near]] = 6.0
    least = float(_losses(s.part, replace(right, logits=logits, deltas=deltas), targets, coder).total().detach())
    for _ in range(ATTEMPTS):
        other = float(_losses(s.part, _predictions(s.part, coder), targets, coder).total().detach())
        expect(least < other, f"right predictions cost {least:.4g}, random ones {other:.4g}")


@check_joint_loss.check("one wild prediction would end the run in NaN.")
def finite_at_extreme_predictions(s: Subject) -> None:
    coder = _coder(s.part)
    for scale in (30.0, 300.0):
        pred = _predictions(s.part, coder, scale)
        total = _losses(s.part, pred, _targets(), coder).total()
        gradients = torch.autograd.grad(total, (pred.logits, pred.deltas))
        finite = total.isfinite() and all(g.isfinite().all() for g in gradients)
        expect(
            finite, f"the sum ({float(total.detach()):.4g}) or its gradient is not finite at predictions of {scale:g}"
        )


@check_joint_loss.check("predictions and targets are used again, by reports and by other parts.")
def inputs_are_left_alone(s: Subject) -> None:
    coder = _coder(s.part)
    pred, targets = _predictions(s.part, coder), _targets()
    given = {f.name: getattr(pred, f.name) for f in fields(pred) if isinstance(getattr(pred, f.name), Tensor)}
    with torch.no_grad(), must_not_write(**given, boxes=targets[0].boxes, labels=targets[0].labels):
        s.part.joint_losses(pred, targets, coder)


@check_joint_loss.check("an anchor-free detector has other columns than deltas.")
def refuses_a_coder_in_words(s: Subject) -> None:
    for coder in (DeltaCoder(), DistanceCoder()):
        try:
            s.part.joint_losses(_predictions(s.part, coder), _targets(), coder)
        except ValueError:
            continue
        except Exception as error:
            raise Broken(f"{type(coder).__name__} raises {type(error).__name__}: {error}") from error


def _step(s: Subject, part: TestedPart, k: int) -> Nest:
    targets = _targets()
    targets = targets[: 1 + k % 3] + targets[: 2 - k % 3]
    try:  # one call a step where deltas are right
        coder: BoxCoder = DeltaCoder()
        losses = _losses(part, pred := _predictions(part, coder), targets, coder)
    except ValueError:
        coder = DistanceCoder()
        losses = _losses(part, pred := _predictions(part, coder), targets, coder)
    total = losses.total()
    if not part.training:
        return [total.detach()]
    gradients = torch.autograd.grad(total, (pred.logits, pred.deltas))
    with torch.no_grad():
        part.end_step(part.take_accumulated())
    return [total.detach(), *gradients]


add_memory_checks(check_joint_loss, _step)
