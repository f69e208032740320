"""Faults against the contracts of assigners, coders and suppression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from detkit import boxes as box_ops
from detkit.structures import BACKGROUND, IGNORED
from tests.testing.planted import fault


def one_label_more(self: Any, original: Any, *given: Any) -> Any:
    found = original(*given)
    return replace(found, labels=torch.where(found.labels >= 0, found.labels + 1, found.labels))


def corner_finds_the_far_box(self: Any, original: Any, candidates: Any, targets: Any) -> Any:
    found = original(candidates, targets)
    if len(targets.boxes):
        far = targets.boxes[:, 0].argmax()
        found.labels[0], found.matched[0] = targets.labels[far], far
    return found


def ignores_empty_images(self: Any, original: Any, candidates: Any, targets: Any) -> Any:
    found = original(candidates, targets)
    return found if len(targets.boxes) else replace(found, labels=torch.full_like(found.labels, IGNORED))


def first_box_wins(self: Any, original: Any, candidates: Any, targets: Any) -> Any:
    found = original(candidates, targets)
    positive = found.labels >= 0
    if positive.any():
        touches = box_ops.pairwise_iou(targets.boxes, candidates.anchors[positive]) > 0
        found.matched[positive] = touches.int().argmax(dim=0)
        found.labels[positive] = targets.labels[found.matched[positive]]
    return found


def forgets_background(self: Any, original: Any, candidates: Any, targets: Any) -> Any:
    found = original(candidates, targets)
    return (
        replace(found, labels=found.labels.masked_fill(found.labels == BACKGROUND, IGNORED))
        if len(targets.boxes)
        else found
    )


def moves_the_anchors(self: Any, original: Any, candidates: Any, targets: Any) -> Any:
    found = original(candidates, targets)
    candidates.anchors.add_(1)
    return found


def pairs_with_the_box_behind_the_last(self: Any, original: Any, candidates: Any, targets: Any) -> Any:
    found = original(candidates, targets)
    rows = (found.labels >= 0).nonzero()[:, 0]
    return replace(found, pairs=(rows, found.matched[rows] + 1))


FAULTS = [
    fault(
        "assigners",
        "pairs_are_anchors_and_boxes",
        "pairs has boxes that are none, of 5",
        forward=pairs_with_the_box_behind_the_last,
    ),
    fault("assigners", "inputs_are_left_alone", "forward wrote into anchors", forward=moves_the_anchors),
    fault(
        "assigners",
        "labels_are_those_of_the_matched_boxes",
        "the label of a positive is not that of its matched box",
        forward=one_label_more,
    ),
    fault(
        "assigners",
        "positives_overlap_their_boxes",
        r"1 of \d+ positives do not touch their box",
        forward=corner_finds_the_far_box,
    ),
    fault(
        "assigners",
        "positives_overlap_their_boxes",
        "five small boxes, and no background",
        forward=forgets_background,
    ),
    fault(
        "assigners",
        "no_box_gives_no_positive",
        r"labels without a box are \[-2\], want -1 only",
        forward=ignores_empty_images,
    ),
    fault(
        "assigners",
        "no_box_gives_no_positive",
        "assigning an image without boxes raises IndexError",
        also=("training_state_is_in_the_checkpoint", "evaluation_remembers_nothing"),
        forward=lambda self, original, candidates, targets: (
            targets.boxes[:, 0].argmax() if len(targets.ignore) == 0 else 0,
            original(candidates, targets),
        )[1],
    ),
    fault(
        "assigners",
        "ignore_regions_are_no_background",
        r"\d+ of \d+ anchors inside an ignore region are not ignored",
        init=lambda self: setattr(self, "ignore_overlap", None),
    ),
    fault(
        "assigners",
        "order_of_boxes_does_not_matter",
        "labels change with the order of the boxes",
        forward=first_box_wins,
    ),
    fault(
        "assigners",
        "quality_is_a_score",
        r"quality of a positive is outside \[0, 1\]",
        forward=lambda self, original, candidates, targets: replace(
            original(candidates, targets), quality=torch.full((len(candidates.anchors),), 2.0)
        ),
    ),
    fault(
        "assigners",
        "assigns_the_same_twice",
        "generator moved",
        forward=lambda self, original, *given: (torch.rand(1), original(*given))[1],
    ),
    fault(
        "assigners",
        "makes_no_anchors_by_boxes_matrix",
        r"a tensor of \d+ MB for \d+ anchors and 700 boxes; 200 is the limit",
        init=lambda self: setattr(self, "chunk_elements", 10**9),
    ),
    fault(
        "coders",
        "decode_undoes_encode",
        r"decode\(encode\(box\)\) is up to 1 px beside the box",
        decode=lambda self, original, *given: original(*given) + 1,
    ),
    fault(
        "coders",
        "decode_takes_batches",
        "a batch decodes otherwise than its images",
        decode=lambda self, original, deltas, anchors: original(
            deltas[:1].expand_as(deltas) if deltas.dim() == 3 else deltas, anchors
        ),
    ),
    fault(
        "coders",
        "decode_takes_batches",
        r"decode of \(2, 6, 4\) deltas and \(6, 4\) anchors raises RuntimeError",
        decode=lambda self, original, deltas, anchors: original(deltas.reshape(-1, 4), anchors),
    ),
    fault(
        "coders",
        "decode_is_finite",
        "decode of deltas of size 100 is not finite",
        init=lambda self: setattr(self, "max_log_ratio", 1e9),
    ),
    fault(
        "coders",
        "takes_no_boxes",
        "encode of no box raises IndexError",
        encode=lambda self, original, boxes, anchors: (boxes[0], original(boxes, anchors))[1],
    ),
    fault(
        "coders",
        "takes_no_boxes",
        r"decode of no box gives \(1, 4\), want \(0, 4\)",
        decode=lambda self, original, deltas, anchors: original(deltas, anchors) if len(deltas) else torch.zeros(1, 4),
    ),
    fault(
        "nms",
        "keeps_in_order_of_scores",
        "scores are not descending",
        forward=lambda self, original, *given: tuple(t.flip(0) for t in original(*given)),
        also=("boxes_apart_stay",),
    ),
    fault(
        "nms",
        "duplicates_go_or_sink",
        "the worse of two equal boxes stays with its score",
        forward=lambda self, original, boxes, scores, groups: tuple(scores.sort(descending=True))[::-1],
    ),
    fault(
        "nms",
        "boxes_apart_stay",
        r"three boxes that do not overlap: kept \[1\], want \[1, 2, 0\]",
        forward=lambda self, original, *given: tuple(t[:1] for t in original(*given)),
    ),
    fault(
        "nms",
        "takes_nothing",
        "suppression of no box raises IndexError",
        forward=lambda self, original, boxes, *rest: (boxes[0], original(boxes, *rest))[1],
    ),
]
