"""Matrix NMS: all scores lowered at once."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detkit.nms.base import NonMaxSuppression
from detkit.ops import matrix_nms
from detkit.registry import NMS, Positive


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
