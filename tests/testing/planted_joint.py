"""Faults against the contract of joint losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from detkit.coders.distance import DistanceCoder
from detkit.losses.normalizers import PositiveCount
from detkit.structures import Losses
from tests.testing.planted import fault
from tests.testing.planted_memory import EVALUATION, RESUME, count, remembers_first

SLOT = "joint_losses"


def changed(losses: Losses, change: Any) -> Losses:
    """The losses, every term changed."""
    return replace(losses, terms={name: change(term) for name, term in losses.terms.items()})


def leaves_boxes_out(self: Any, original: Any, pred: Any, targets: Any, coder: Any) -> Losses:
    objects = any(len(t.labels) for t in targets)
    return original(pred if objects else replace(pred, deltas=pred.deltas.detach()), targets, coder)


def moves_the_truth(self: Any, original: Any, pred: Any, targets: Any, coder: Any) -> Losses:
    targets[0].boxes.add_(1e-3)
    return original(pred, targets, coder)


def knows_deltas_only(self: Any, original: Any, pred: Any, targets: Any, coder: Any) -> Losses:
    if isinstance(coder, DistanceCoder):
        raise KeyError("deltas")
    return original(pred, targets, coder)


FAULTS = [
    fault(
        SLOT,
        "terms_and_divisors_agree",
        r"normalizers are \['objects'\], divisors \['others'\]",
        divisors=lambda self, original: {"others": PositiveCount()},
    ),
    fault(
        SLOT,
        "every_output_gets_a_gradient",
        "the sum does not depend on the deltas without an object",
        joint_losses=leaves_boxes_out,
    ),
    fault(
        SLOT,
        "sums_add_up_over_images",
        "term classes differs by .* between a batch and its images",
        joint_losses=lambda self, original, pred, targets, coder: changed(
            original(pred, targets, coder), lambda term: term / len(targets)
        ),
    ),
    fault(
        SLOT,
        "right_costs_less_than_random",
        "right predictions cost .*, random ones",
        joint_losses=lambda self, original, *given: changed(original(*given), lambda term: -term),
    ),
    fault(
        SLOT,
        "finite_at_extreme_predictions",
        "or its gradient is not finite at predictions of 300",
        joint_losses=lambda self, original, pred, targets, coder: changed(
            original(pred, targets, coder), lambda term: term + 1e-30 * (pred.logits / 4).exp().sum()
        ),
    ),
    fault(SLOT, "inputs_are_left_alone", "forward wrote into boxes", joint_losses=moves_the_truth),
    fault(SLOT, "refuses_a_coder_in_words", "DistanceCoder raises KeyError", joint_losses=knows_deltas_only),
    fault(
        SLOT,
        RESUME,
        "calls being 999",
        joint_losses=lambda self, original, *given: changed(
            original(*given), lambda term: term * (1 + (count(self) % 1000 == 0))
        ),
    ),
    fault(
        SLOT,
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        joint_losses=lambda self, original, pred, *rest: changed(
            original(pred, *rest), lambda term: term + 1e3 * remembers_first(self, pred.deltas.detach())
        ),
    ),
]
