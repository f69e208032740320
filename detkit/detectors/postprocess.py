"""Turns raw predictions into detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import ClassificationLoss, QualityLoss
from detkit.nms.base import NonMaxSuppression
from detkit.ops import vote_boxes
from detkit.registry import FractionBelowOne, Positive, PositiveInt, enforce_bounds
from detkit.structures import Detections, Predictions


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class PostprocessOptions:
    """Selection of detections, before and after suppression.

    Args:
        score_threshold: score that a detection must exceed.
        topk_per_level: best candidates kept per level before decoding; null if topk_per_class is set.
        topk_counts: what topk_per_level counts: `pairs` of anchor and class, or `anchors` by their best class, each of
            which gives a candidate for every class above the threshold, as PAA has it in MMDetection.
        topk_per_class: best candidates kept per class over all levels, as SSD does; null if topk_per_level is set.
        max_detections: detections kept per image after suppression.
        clip: when boxes are clipped to the image, before suppression as in torchvision, or after it as in Detectron2,
            which also drops a box without area then (so there can be fewer than max_detections), or never.
        drop_empty: drop boxes that have no area, once clipped, before suppression as well.
        threshold_on: which score `score_threshold` and the top k look at where there is a quality branch: `class`, that
            of the class alone, as in FCOS, or `score`, the combined one, as in YOLOX.
        vote_sigma: move every detection to the mean of the candidates of its class that overlap it, which weigh their
            scores times exp(-(1 - IoU)^2 / vote_sigma), as PAA does with 0.025 (2007.08103, section 3.4); null: don't.
        best_class_only: one candidate an anchor, of its best class, instead of one for every class above the threshold.
    """

    score_threshold: FractionBelowOne = 0.05
    topk_per_level: PositiveInt | None = 1000
    topk_counts: Literal["pairs", "anchors"] = "pairs"
    topk_per_class: PositiveInt | None = None
    max_detections: PositiveInt = 100
    clip: Literal["before_nms", "after_nms", "never"] = "before_nms"
    drop_empty: bool = False
    threshold_on: Literal["class", "score"] = "score"
    vote_sigma: Positive | None = None
    best_class_only: bool = False

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
    quality_loss: QualityLoss | None = None,
) -> list[Detections]:
    """One `Detections` per image, in pixels of the network's input, inside `sizes` (B, 2)."""
    # topk_per_class selects among all anchors, as if they were one level.
    level_sizes = [len(pred.anchors)] if options.topk_per_level is None else list(pred.level_sizes)
    anchors = torch.split(pred.anchors, level_sizes)
    detections = []
    by_class = quality_loss is not None and options.threshold_on == "class"
    least = 0.0 if by_class else options.score_threshold
    for image, (height, width) in enumerate(sizes.tolist()):
        qualities = [None] * len(level_sizes) if pred.quality is None else torch.split(pred.quality[image], level_sizes)
        levels = zip(
            torch.split(pred.logits[image], level_sizes),
            torch.split(pred.deltas[image], level_sizes),
            qualities,
            anchors,
            strict=True,
        )
        candidates = [_candidates(*level, options, class_loss, coder, quality_loss) for level in levels]
        boxes, scores, labels = (torch.cat(column) for column in zip(*candidates, strict=True))
        clipped = boxes if options.clip == "never" else box_ops.clip(boxes, height, width)
        if options.drop_empty:
            full = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
            boxes, clipped, scores, labels = boxes[full], clipped[full], scores[full], labels[full]
        clip_late = options.clip == "after_nms"
        keep, ranked = nms(boxes if clip_late else clipped, scores, labels)
        keep, ranked = keep[: options.max_detections], ranked[: options.max_detections]
        good = ranked > least
        if clip_late:
            good &= (clipped[keep, 2:] > clipped[keep, :2]).all(dim=1)
        keep, ranked = keep[good], ranked[good]
        kept = clipped[keep]
        if options.vote_sigma is not None:
            kept = vote_boxes(clipped, scores, keep, nms.within(labels), sigma=options.vote_sigma)
        detections.append(Detections(kept, ranked, labels[keep]))
    return detections


def _candidates(
    logits: Tensor,
    deltas: Tensor,
    quality: Tensor | None,
    anchors: Tensor,
    options: PostprocessOptions,
    class_loss: ClassificationLoss,
    coder: BoxCoder,
    quality_loss: QualityLoss | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates of one level of one image -> boxes, scores, labels.

    logits (n, C), deltas (n, D), quality (n, 1) or None, anchors (n, 4).
    """
    ranked = scores = class_loss.scores(logits.float())
    if quality_loss is not None and quality is not None:
        scores = quality_loss.combine(scores, quality)
        if options.threshold_on == "score":
            ranked = scores
    if options.best_class_only:
        best = ranked.argmax(dim=1, keepdim=True)
        ranked = torch.zeros_like(ranked).scatter_(1, best, ranked.gather(1, best))
    if options.topk_per_class is not None:
        top, rows = ranked.t().topk(min(options.topk_per_class, len(ranked)), dim=1)
        labels, rank = (top > options.score_threshold).nonzero(as_tuple=True)
        rows = rows[labels, rank]
    elif options.topk_counts == "anchors":
        assert options.topk_per_level is not None
        best = ranked.amax(dim=1).topk(min(options.topk_per_level, len(ranked))).indices
        rows, labels = (ranked[best] > options.score_threshold).nonzero(as_tuple=True)
        rows = best[rows]
    else:
        assert options.topk_per_level is not None
        num_classes = ranked.shape[1]
        flat = ranked.flatten()
        above = (flat > options.score_threshold).nonzero()[:, 0]
        _, order = flat[above].topk(min(options.topk_per_level, len(above)))
        rows, labels = above[order] // num_classes, above[order] % num_classes
    return coder.decode(deltas[rows].float(), anchors[rows]), scores[rows, labels], labels
