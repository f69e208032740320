"""Non-maximum suppression, greedy or by lowering scores."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detkit.nms.base import NonMaxSuppression
from detkit.ops import batched_nms, diou_nms, matrix_nms, nms, soft_nms
from detkit.registry import NMS, Fraction, Positive


@NMS.register()
class HardNMS(NonMaxSuppression):
    """Greedy suppression by IoU.

    Args:
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is greater.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(self, *, iou_threshold: Fraction = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = iou_threshold

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        if self.class_agnostic:
            keep = nms(boxes, scores, self.iou_threshold)
        else:
            keep = batched_nms(boxes, scores, groups, self.iou_threshold)
        return keep, scores[keep]


@NMS.register()
class DIoUNMS(HardNMS):
    """Greedy suppression by IoU less the distance of the centres (1911.08287, section 3.4).

    Args:
        iou_threshold: a box is dropped if its distance IoU with a kept box of higher score is greater.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        keep = diou_nms(boxes, scores, self.iou_threshold, self.within(groups))
        return keep, scores[keep]


@NMS.register()
class SoftNMS(NonMaxSuppression):
    """Lowers the score of a box by its overlap with boxes of higher score (1704.04503).

    Args:
        method: `linear` multiplies by 1 - IoU where IoU > iou_threshold, `gaussian` by exp(-IoU^2 / sigma).
        iou_threshold: IoU above which `linear` lowers a score.
        sigma: width of the Gaussian.
        min_score: a box whose score falls to this or below is dropped.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(
        self,
        *,
        method: Literal["linear", "gaussian"] = "gaussian",
        iou_threshold: Fraction = 0.3,
        sigma: Positive = 0.5,
        min_score: Fraction = 0.001,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.method, self.sigma, self.iou_threshold, self.min_score = method, sigma, iou_threshold, min_score

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        return soft_nms(
            boxes,
            scores,
            self.within(groups),
            method=self.method,
            iou_threshold=self.iou_threshold,
            sigma=self.sigma,
            min_score=self.min_score,
        )


@NMS.register()
class MatrixNMS(NonMaxSuppression):
    """Lowers all scores at once, without going from box to box (2003.10152, section 3.3).

    No box is dropped here; postprocess.score_threshold drops those whose scores fall below it.

    Args:
        kernel: how the overlap lowers a score, `linear` by 1 - IoU or `gaussian` by exp(-IoU^2 / sigma).
        sigma: width of the Gaussian.
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(
        self,
        *,
        kernel: Literal["linear", "gaussian"] = "gaussian",
        sigma: Positive = 0.5,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.kernel, self.sigma = kernel, sigma

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        return matrix_nms(boxes, scores, self.within(groups), kernel=self.kernel, sigma=self.sigma)
