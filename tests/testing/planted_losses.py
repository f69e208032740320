"""Faults against the contracts of class losses, box losses and normalisers."""

from __future__ import annotations

from typing import Any

import torch

from detkit.structures import BACKGROUND, IGNORED
from tests.testing.planted import fault, vanishing

MEMORY = ("training_state_is_in_the_checkpoint", "evaluation_remembers_nothing")
"""What a part that fails without an object breaks besides."""


def without_images_without_positives(self: Any, original: Any, logits: Any, labels: Any, quality: Any) -> Any:
    return original(logits, labels.masked_fill((labels < 0).all(dim=1, keepdim=True), IGNORED))


def off_by_one(self: Any, original: Any, logits: Any, labels: Any, quality: Any) -> Any:
    return original(logits, torch.where(labels >= 0, (labels + 1) % logits.shape[-1], labels))


def all_pairs(self: Any, original: Any, logits: Any, labels: Any, quality: Any) -> Any:
    one = logits[..., 0]
    return original(logits, labels) + 0 * (one[:, :, None] - one[:, None, ::500]).sum()


def moves_the_anchors(self: Any, original: Any, deltas: Any, anchors: Any, *rest: Any) -> Any:
    found = original(deltas, anchors, *rest)
    anchors.data += 1
    return found


FAULTS = [
    fault(
        "class_losses",
        "finite_at_the_bounds_of_its_arguments",
        r"the sum \(nan\) or its gradient is not finite with gamma=0",
        forward=lambda self, original, *given: original(*given) * (1.0 if self.gamma else float("nan")),
    ),
    fault(
        "box_losses",
        "finite_at_the_bounds_of_its_arguments",
        r"the sum \(nan\) or its gradient is not finite with weight=0",
        forward=lambda self, original, *given: original(*given) * (1.0 if self.weight else float("nan")),
    ),
    fault(
        "class_losses",
        "columns_and_bias_agree",
        r"initial_bias\(1\) is \(2,\), want \(1,\)",
        initial_bias=lambda self, original, classes: original(classes + 1 if classes != 3 else 3),
    ),
    fault(
        "class_losses",
        "scores_are_probabilities",
        r"scores outside \[0, 1\] for logits of size 10000",
        scores=lambda self, original, logits: original(logits) + (logits - 100).relu(),
    ),
    fault(
        "class_losses",
        "scores_follow_the_loss",
        "learning label 0 raises the score of class 1 most",
        forward=off_by_one,
    ),
    fault(
        "class_losses",
        "starts_at_its_prior",
        "the score of a class at the start is 0.5, start_score.3. says 0.01",
        initial_bias=lambda self, original, classes: torch.zeros(classes),
    ),
    fault(
        "class_losses",
        "starts_at_its_prior",
        "the score of a class at the start is 0.731, want at most 0.5",
        initial_bias=lambda self, original, classes: torch.ones(classes),
        start_score=lambda self, original, classes: None,
    ),
    fault(
        "class_losses",
        "learns_from_an_empty_batch",
        "no gradient without a positive",
        forward=without_images_without_positives,
    ),
    fault(
        "class_losses",
        "learns_from_an_empty_batch",
        "needs_positives is True, but there is a gradient",
        needs_positives=True,
    ),
    fault(
        "class_losses",
        "ignored_alone_give_zero_with_a_graph",
        "the sum has no graph",
        forward=lambda self, original, logits, labels, quality: (
            original(logits, labels) if (labels != IGNORED).any() else torch.zeros(())
        ),
    ),
    fault(
        "class_losses",
        "ignored_anchors_get_no_gradient",
        "the gradient of an ignored anchor is not 0",
        forward=lambda self, original, logits, labels, quality: original(logits, labels.clamp(min=BACKGROUND)),
        also=("ignored_alone_give_zero_with_a_graph",),
    ),
    fault(
        "class_losses",
        "finite_at_extreme_predictions",
        r"the sum \(nan\) or its gradient is not finite for predictions of size 30",
        forward=lambda self, original, logits, labels, quality: original(logits, labels) + 0 * logits.exp().sum(),
    ),
    fault(
        "class_losses",
        "right_costs_less_than_wrong",
        "the sum is -.* after learning",
        forward=lambda self, original, logits, labels, quality: (
            original(logits, labels) - 2 * original(logits, labels).detach()  # the gradient is right
        ),
    ),
    fault(
        "class_losses",
        "sum_adds_up_over_images",
        "the batch gives .*, its parts .*set batch_wise = True",
        forward=lambda self, original, logits, labels, quality: original(logits, labels) / len(logits),
    ),
    fault(
        "class_losses",
        "finite_in_bfloat16",
        "the sum .* or its gradient is not finite in bfloat16",
        forward=lambda self, original, logits, labels, quality: original(logits, labels) + vanishing(logits[0, 0, 0]),
    ),
    fault(
        "class_losses",
        "inputs_are_left_alone",
        "forward wrote into logits",
        forward=lambda self, original, logits, labels, quality: (original(logits, labels), logits.data.add_(1))[0],
        also=("sum_adds_up_over_images",),
    ),
    fault(
        "class_losses",
        "takes_100k_anchors",
        "a tensor 67 times as large as the logits of 100k anchors; 32 is the limit",
        forward=all_pairs,
    ),
    fault(
        "box_losses",
        "perfect_boxes_cost_nothing",
        "12 perfect boxes cost 6, want 0",
        forward=lambda self, original, deltas, *rest: original(deltas, *rest) + 0.5 * len(deltas),
    ),
    fault(
        "box_losses",
        "perfect_boxes_cost_nothing",
        "deltas off by 0.05 cost 0, perfect ones",
        forward=lambda self, original, deltas, anchors, boxes, coder: (
            (deltas - coder.encode(boxes, anchors)).abs().sub(0.06).relu().sum()
        ),
        also=("gradient_points_to_the_truth",),
    ),
    fault(
        "box_losses",
        "gradient_points_to_the_truth",
        "a small step against the gradient takes the sum from",
        forward=lambda self, original, *given: 2 * original(*given).detach() - original(*given),
    ),
    fault(
        "box_losses",
        "empty_gives_zero_with_a_graph",
        "the sum has no graph",
        forward=lambda self, original, deltas, *rest: original(deltas, *rest) if len(deltas) else torch.zeros(()),
    ),
    fault(
        "box_losses",
        "empty_gives_zero_with_a_graph",
        "the sum over no box raises IndexError",
        also=MEMORY,
        forward=lambda self, original, deltas, *rest: (deltas[0], original(deltas, *rest))[1],
    ),
    fault(
        "box_losses",
        "sum_adds_up_over_boxes",
        "the batch gives .*, its parts",
        forward=lambda self, original, deltas, *rest: original(deltas, *rest) / max(len(deltas), 1),
    ),
    fault(
        "box_losses",
        "finite_at_extreme_predictions",
        r"the sum \(nan\) or its gradient is not finite for predictions of size 1000",
        forward=lambda self, original, deltas, *rest: original(deltas, *rest) + 0 * deltas.exp().sum(),
    ),
    fault(
        "box_losses",
        "inputs_stay_as_they_are",
        "forward wrote into anchors",
        forward=moves_the_anchors,
        also=("sum_adds_up_over_boxes",),
    ),
    fault(
        "normalizers",
        "counts_add_up_over_images",
        "the batch gives .*, its parts",
        forward=lambda self, original, labels: original(labels) / len(labels),
    ),
    fault(
        "normalizers",
        "divisor_is_above_zero",
        r"divisor\(0\) is 0.0",
        divisor=lambda self, original, total: total,
    ),
    fault(
        "normalizers",
        "image_weights_are_finite",
        r"image_weights is \[0.2.*, inf\]",
        image_weights=lambda self, original, labels: 1 / (labels >= 0).sum(dim=1),
    ),
    fault(
        "normalizers",
        "image_weights_are_finite",
        r"image_weights is \(3, 1\), want \(3,\)",
        image_weights=lambda self, original, labels: torch.ones(len(labels), 1),
    ),
    fault("normalizers", "says_what_it_divides_by", "meaning is empty", meaning=""),
]
