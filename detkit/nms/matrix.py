"""Matrix NMS: all scores lowered at once."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detkit.nms.base import NonMaxSuppression, above_zero
from detkit.registry import NMS


@NMS.register()
class MatrixNMS(NonMaxSuppression):
    """Lowers all scores at once, without going from box to box (2003.10152, section 3.3).

    kernel: of the overlap, "linear" 1 - IoU or "gaussian" exp(-IoU^2 / sigma). No box goes; what falls below
    postprocess.score_threshold is left out afterwards. class_agnostic: all boxes are one group.
    """

    def __init__(
        self,
        *,
        kernel: Literal["linear", "gaussian"] = "gaussian",
        sigma: float = 0.5,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.kernel, self.sigma = kernel, above_zero("sigma", sigma)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NonMaxSuppression.forward`."""
        from detkit.ops import matrix_nms

        return matrix_nms(boxes, scores, self.within(groups), kernel=self.kernel, sigma=self.sigma)
