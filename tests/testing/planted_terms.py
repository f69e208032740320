"""Faults against the contracts of box weights, quality losses and auxiliary losses, and the openings of heads."""

from __future__ import annotations

from typing import Any

import torch

from tests.testing.planted import fault
from tests.testing.planted_memory import count, remembers_first

MEMORY = ("training_state_is_in_the_checkpoint", "evaluation_remembers_nothing")
RESUME, EVALUATION = MEMORY


def teaches_ignored(self: Any, original: Any, quality: Any, labels: Any, positives: Any) -> Any:
    return original(quality, labels, positives) + quality.sum() * 0.1


def mean_of_images(self: Any, original: Any, quality: Any, labels: Any, positives: Any) -> Any:
    return original(quality, labels, positives) / len(labels)


FAULTS = [
    fault(
        "box_weights",
        "weights_are_not_negative",
        r"weights are \[-",
        forward=lambda self, original, positives: original(positives) - 2,
    ),
    fault(
        "box_weights",
        "weighs_each_positive_by_itself",
        "weights differ by up to .* between a batch and its parts",
        forward=lambda self, original, positives: (lambda w: w / w.sum().clamp(min=1e-6))(original(positives)),
    ),
    fault(
        "box_weights",
        RESUME,
        "calls being 999",
        forward=lambda self, original, positives: original(positives) * (1 + (count(self) % 1000 == 0)),
    ),
    fault(
        "box_weights",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, positives: original(positives) + remembers_first(self, positives.boxes),
    ),
    fault(
        "quality_losses",
        "takes_a_batch_without_positives",
        "the sum or its gradient is not finite without a positive",
        forward=lambda self, original, quality, labels, positives: (
            original(quality, labels, positives) * (1.0 if len(positives) else float("nan"))
        ),
    ),
    fault(
        "quality_losses",
        "ignored_anchors_teach_nothing",
        "the gradient of an ignored anchor is not 0",
        forward=teaches_ignored,
    ),
    fault(
        "quality_losses",
        "combined_scores_are_scores",
        r"combined scores outside \[0, 1\] for logits of 1",
        combine=lambda self, original, scores, quality: scores + quality.sigmoid(),
    ),
    fault(
        "quality_losses",
        "combined_scores_are_scores",
        "a higher quality gives a lower score",
        combine=lambda self, original, scores, quality: original(scores, -quality),
    ),
    fault(
        "quality_losses",
        "quality_sum_adds_up_over_images",
        "the batch gives .*, its images",
        forward=mean_of_images,
    ),
    fault(
        "quality_losses",
        RESUME,
        "calls being 999",
        forward=lambda self, original, *given: original(*given) * (1 + (count(self) % 1000 == 0)),
    ),
    fault(
        "quality_losses",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, quality, *rest: original(quality, *rest) + remembers_first(self, quality),
    ),
    fault("auxiliary_losses", "has_a_name", "name is empty", name=""),
    fault(
        "auxiliary_losses",
        "empty_gives_zero_with_a_graph",
        "the sum has no graph",
        forward=lambda self, original, positives, *rest: (
            original(positives, *rest) if len(positives) else torch.zeros(())
        ),
        also=MEMORY,
    ),
    fault(
        "auxiliary_losses",
        "sum_adds_up_over_positives",
        "all give .*, two parts",
        forward=lambda self, original, positives, *rest: original(positives, *rest) / max(len(positives), 1),
    ),
    fault(
        "auxiliary_losses",
        "weights_scale_the_term",
        "weights of 2 give .*, weights of 1",
        forward=lambda self, original, positives, coder, weights=None: original(
            positives, coder, None if weights is None else weights.square()
        ),
    ),
    fault(
        "auxiliary_losses",
        RESUME,
        "calls being 999",
        forward=lambda self, original, *given: original(*given) * (1 + (count(self) % 1000 == 0)),
    ),
    fault(
        "auxiliary_losses",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, positives, *rest: (
            original(positives, *rest) + remembers_first(self, positives.deltas)
        ),
    ),
    fault(
        "box_losses",
        "weights_scale_the_cost_of_each_box",
        "weights w and 2 - w give .*, want",
        forward=lambda self, original, deltas, anchors, boxes, coder, weights=None: original(
            deltas, anchors, boxes, coder, None if weights is None else weights.sqrt()
        ),
    ),
    fault(
        "heads",
        "serves_the_coder_and_the_quality_loss",
        "deltas of level 0 are .*, want .* 6",
        forward=lambda self, original, features: (lambda o: o._replace(deltas=[d[..., :4] for d in o.deltas]))(
            original(features)
        ),
    ),
]
