"""Turns raw predictions into detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import ClassificationLoss
from detkit.nms.base import NonMaxSuppression
from detkit.registry import FractionBelowOne, PositiveInt, enforce_bounds
from detkit.structures import Detections, Predictions


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class PostprocessOptions:
    """Selection of detections, before and after suppression.

    Args:
        score_threshold: score that a detection must exceed.
        topk_per_level: best candidates kept per level before decoding; null if topk_per_class is set.
        topk_per_class: best candidates kept per class over all levels, as SSD does; null if topk_per_level is set.
        max_detections: detections kept per image after suppression.
        clip: when boxes are clipped to the image, before suppression as in torchvision, or after it as in Detectron2,
            which also drops a box without area then (so there can be fewer than max_detections).
    """

    score_threshold: FractionBelowOne = 0.05
    topk_per_level: PositiveInt | None = 1000
    topk_per_class: PositiveInt | None = None
    max_detections: PositiveInt = 100
    clip: Literal["before_nms", "after_nms"] = "before_nms"

    def __post_init__(self) -> None:
        if (self.topk_per_level is None) == (self.topk_per_class is None):
            raise ValueError(
                f"topk_per_level={self.topk_per_level}, topk_per_class={self.topk_per_class}: "
                f"one of them must be null and the other a number"
            )


def postprocess(
    pred: Predictions,
    sizes: Tensor,
    options: PostprocessOptions,
    class_loss: ClassificationLoss,
    coder: BoxCoder,
    nms: NonMaxSuppression,
) -> list[Detections]:
    """One `Detections` per image, in pixels of the network's input, inside `sizes` (B, 2)."""
    # topk_per_class selects among all anchors, as if they were one level.
    level_sizes = (len(pred.anchors),) if options.topk_per_level is None else pred.level_sizes
    anchors = torch.split(pred.anchors, list(level_sizes))
    detections = []
    for logits, deltas, (height, width) in zip(pred.logits, pred.deltas, sizes.tolist(), strict=True):
        levels = zip(logits.split(level_sizes), deltas.split(level_sizes), anchors, strict=True)
        candidates = [_candidates(*level, options, class_loss, coder) for level in levels]
        boxes, scores, labels = (torch.cat(column) for column in zip(*candidates, strict=True))
        clipped = box_ops.clip(boxes, height, width)
        clip_late = options.clip == "after_nms"
        keep, scores = nms(boxes if clip_late else clipped, scores, labels)
        keep, scores = keep[: options.max_detections], scores[: options.max_detections]
        good = scores > options.score_threshold
        if clip_late:
            good &= (clipped[keep, 2:] > clipped[keep, :2]).all(dim=1)
        keep, scores = keep[good], scores[good]
        detections.append(Detections(clipped[keep], scores, labels[keep]))
    return detections


def _candidates(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    options: PostprocessOptions,
    class_loss: ClassificationLoss,
    coder: BoxCoder,
) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates of one level of one image: logits (n, C), deltas, anchors (n, 4) -> boxes, scores, labels."""
    scores = class_loss.scores(logits.float())
    if options.topk_per_class is not None:
        scores, rows = scores.t().topk(min(options.topk_per_class, len(scores)), dim=1)
        labels, rank = (scores > options.score_threshold).nonzero(as_tuple=True)
        scores, rows = scores[labels, rank], rows[labels, rank]
    else:
        assert options.topk_per_level is not None
        num_classes = scores.shape[1]
        scores = scores.flatten()
        above = (scores > options.score_threshold).nonzero()[:, 0]
        scores, order = scores[above].topk(min(options.topk_per_level, len(above)))
        rows, labels = above[order] // num_classes, above[order] % num_classes
    return coder.decode(deltas[rows].float(), anchors[rows]), scores, labels
