"""Losses of the quality branch: centre-ness, IoU and objectness."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from detkit import boxes as box_ops
from detkit.losses.base import QualityLoss
from detkit.losses.sigmoid import to_float32
from detkit.registry import QUALITY_LOSSES, NonNegative, enforce_bounds
from detkit.structures import IGNORED, Positives

Rule = Literal["product", "root"]


@enforce_bounds
class SigmoidQuality(QualityLoss):
    """Cross-entropy of one sigmoid an anchor; detections are ranked by class score and quality together.

    Args:
        rule: `product` of class score and quality, or the `root` of it, which is their geometric mean.
        weight: factor on the sum.
    """

    def __init__(self, *, rule: Rule = "product", weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.rule, self.weight = rule, weight

    def combine(self, scores: Tensor, quality: Tensor) -> Tensor:
        product = scores * to_float32(quality).sigmoid()
        return product if self.rule == "product" else product.sqrt()

    def forward(self, quality: Tensor, labels: Tensor, positives: Positives) -> Tensor:
        assert positives.quality is not None
        targets = self.targets(positives).detach()
        cost = F.binary_cross_entropy_with_logits(to_float32(positives.quality), targets, reduction="sum")
        return self.weight * cost

    def targets(self, positives: Positives) -> Tensor:
        """(P,) targets of the positives, in [0, 1]."""
        raise NotImplementedError


@QUALITY_LOSSES.register()
class CenternessLoss(SigmoidQuality):
    """How central the anchor's middle lies in the true box, from the positives (FCOS, 1904.01355, equation 3).

    Args:
        rule: `product` of class score and quality, or the `root` of it, which is their geometric mean.
        weight: factor on the sum.
    """

    def targets(self, positives: Positives) -> Tensor:
        return box_ops.centerness(box_ops.centres(positives.anchors), positives.boxes)


@QUALITY_LOSSES.register()
class IoUQualityLoss(SigmoidQuality):
    """The IoU of the predicted with the true box, from the positives (1912.05992; PAA, 2007.08103).

    The predicted box is a constant to the gradient.

    Args:
        rule: `product` of class score and quality, or the `root` of it, which is their geometric mean.
        weight: factor on the sum.
    """

    def targets(self, positives: Positives) -> Tensor:
        return box_ops.paired_iou(positives.predicted().detach(), positives.boxes)


@QUALITY_LOSSES.register()
class ObjectnessLoss(SigmoidQuality):
    """Whether an anchor is positive, from all anchors that are not ignored (YOLOX, 2107.08430).

    Args:
        rule: `product` of class score and quality, or the `root` of it, which is their geometric mean.
        weight: factor on the sum.
    """

    teaches_background = True

    def forward(self, quality: Tensor, labels: Tensor, positives: Positives) -> Tensor:
        counted = labels != IGNORED
        targets = (labels >= 0)[counted].to(to_float32(quality).dtype)
        return self.weight * F.binary_cross_entropy_with_logits(to_float32(quality)[counted], targets, reduction="sum")
