"""Weights of the positives in the box loss."""

from __future__ import annotations

from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.base import BoxWeight
from detkit.registry import BOX_WEIGHTS
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
class TargetQualityWeight(BoxWeight):
    """The quality that the assigner gives, as TOOD's alignment (2108.07755, equation 6), else the predicted IoU."""

    uses_quality = True

    def forward(self, positives: Positives) -> Tensor:
        assert positives.target_quality is not None, "uses_quality"
        return positives.target_quality
