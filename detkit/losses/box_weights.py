"""Weights of the positives in the box loss."""

from __future__ import annotations

from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.base import BoxWeight, change
from detkit.registry import BOX_WEIGHTS, BoxWeightNode, Fraction
from detkit.structures import Positives


@BOX_WEIGHTS.register()
class CenternessWeight(BoxWeight):
    """How central the anchor's middle lies in the true box: 1 in its centre, 0 at an edge (FCOS, 1904.01355, eq. 3)."""

    def forward(self, positives: Positives) -> Tensor:
        return box_ops.centerness(box_ops.centres(positives.anchors), positives.boxes)


@BOX_WEIGHTS.register()
class IoUWeight(BoxWeight):
    """The IoU of the predicted with the true box (VFNet, 2008.13367, section 3.4; PAA, 2007.08103, section 3.3)."""

    def forward(self, positives: Positives) -> Tensor:
        return box_ops.paired_iou(positives.predicted(), positives.boxes)


@BOX_WEIGHTS.register()
class AnchorIoUWeight(BoxWeight):
    """The IoU of the anchor with the true box."""

    def forward(self, positives: Positives) -> Tensor:
        return box_ops.paired_iou(positives.anchors, positives.boxes)


@BOX_WEIGHTS.register()
class ClassScoreWeight(BoxWeight):
    """The highest predicted class score (GFL, 2006.04388: the code of its authors)."""

    def forward(self, positives: Positives) -> Tensor:
        return positives.scores().amax(dim=1)


@BOX_WEIGHTS.register()
class WarmupWeight(BoxWeight):
    """One weight of boxes first, another one later, beside `WarmupAssigner` (TOOD, 2108.07755, section 4).

    Args:
        first: the weight that the training begins with.
        then: the one after it.
        until: fraction of the training after which `then` takes over; null: when the assigner changes, as
            `WarmupAssigner` does.
    """

    def __init__(self, *, first: BoxWeightNode, then: BoxWeightNode, until: Fraction | None = 0.1) -> None:
        super().__init__()
        self.first, self.then, self.until = BOX_WEIGHTS.build(first), BOX_WEIGHTS.build(then), until
        self.uses_quality = self.first.uses_quality or self.then.uses_quality

    def follow(self, changes_at: float | None) -> None:
        self.until = change(self.until, changes_at)
        self.first.follow(changes_at)
        self.then.follow(changes_at)

    def forward(self, positives: Positives) -> Tensor:
        rule = self.first if positives.progress < change(self.until) else self.then
        weights: Tensor = rule(positives)
        return weights


@BOX_WEIGHTS.register()
class TargetQualityWeight(BoxWeight):
    """The quality that the assigner gives, as TOOD's alignment (2108.07755, equation 6), else the predicted IoU."""

    uses_quality = True

    def forward(self, positives: Positives) -> Tensor:
        assert positives.target_quality is not None, "uses_quality"
        return positives.target_quality
