"""From raw predictions to detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import ClassificationLoss
from detkit.nms.base import NonMaxSuppression
from detkit.structures import Detections, Predictions


@dataclass(frozen=True, kw_only=True)
class PostprocessOptions:
    """score_threshold: candidates score more than this. topk_per_level: best candidates kept a level
    before decoding. topk_per_class: best candidates kept a class over all levels, as SSD does, instead;
    topk_per_level is null then. max_detections: kept an image after suppression. clip: when boxes are cut
    to the image, before suppression as in torchvision, or after it as in Detectron2, where a box that is
    left without area is dropped too (so there can be fewer than max_detections)."""

    score_threshold: float = 0.05
    topk_per_level: int | None = 1000
    topk_per_class: int | None = None
    max_detections: int = 100
    clip: Literal["before_nms", "after_nms"] = "before_nms"

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold < 1:
            raise ValueError(f"score_threshold: {self.score_threshold} is not in [0, 1)")
        for name in ("topk_per_level", "topk_per_class", "max_detections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} must be at least 1")
        if (self.topk_per_level is None) == (self.topk_per_class is None):
            raise ValueError(
                f"topk_per_level={self.topk_per_level}, topk_per_class={self.topk_per_class}: "
                f"want a number for one of them and null for the other"
            )


def postprocess(
    pred: Predictions,
    sizes: Tensor,
    options: PostprocessOptions,
    class_loss: ClassificationLoss,
    coder: BoxCoder,
    nms: NonMaxSuppression,
) -> list[Detections]:
    """One `Detections` an image, in pixels of the network's input, inside `sizes` (B, 2)."""
    # The best of a class are chosen among all anchors, as if they were one level.
    level_sizes = (len(pred.anchors),) if options.topk_per_level is None else pred.level_sizes
    anchors = torch.split(pred.anchors, list(level_sizes))
    found = []
    for logits, deltas, (height, width) in zip(pred.logits, pred.deltas, sizes.tolist(), strict=True):
        levels = zip(logits.split(level_sizes), deltas.split(level_sizes), anchors, strict=True)
        candidates = [_candidates(*level, options, class_loss, coder) for level in levels]
        boxes, scores, labels = (torch.cat(column) for column in zip(*candidates, strict=True))
        inside = box_ops.clip(boxes, height, width)
        clip_late = options.clip == "after_nms"
        keep, scores = nms(boxes if clip_late else inside, scores, labels)
        keep, scores = keep[: options.max_detections], scores[: options.max_detections]
        good = scores > options.score_threshold
        if clip_late:
            good &= (inside[keep, 2:] > inside[keep, :2]).all(dim=1)
        keep, scores = keep[good], scores[good]
        found.append(Detections(inside[keep], scores, labels[keep]))
    return found


def _candidates(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    options: PostprocessOptions,
    class_loss: ClassificationLoss,
    coder: BoxCoder,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of one level of one image: logits (n, C), deltas and anchors (n, 4) -> boxes, scores, labels."""
    scores = class_loss.scores(logits.float())
    if options.topk_per_class is not None:
        scores, rows = scores.t().topk(min(options.topk_per_class, len(scores)), dim=1)
        labels, place = (scores > options.score_threshold).nonzero(as_tuple=True)
        scores, rows = scores[labels, place], rows[labels, place]
    else:
        assert options.topk_per_level is not None
        num_classes = scores.shape[1]
        scores = scores.flatten()
        above = (scores > options.score_threshold).nonzero()[:, 0]
        scores, order = scores[above].topk(min(options.topk_per_level, len(above)))
        rows, labels = above[order] // num_classes, above[order] % num_classes
    return coder.decode(deltas[rows].float(), anchors[rows]), scores, labels
