"""Suppression of duplicate detections."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from detkit.registry import NMS


class NMSBase(nn.Module):
    """The contract of a suppression part.

    class_agnostic: all boxes are one group; else a box touches only those of its class.
    """

    def __init__(self, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.class_agnostic = class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), groups (N,) -> indices to keep (M,) and their scores (M,), descending.

        The scores are new ones where the method lowers them instead of dropping boxes.
        """
        raise NotImplementedError

    def within(self, groups: Tensor) -> Tensor | None:
        """The groups, None if all boxes are one."""
        return None if self.class_agnostic else groups


@NMS.register()
class HardNMS(NMSBase):
    """Greedy suppression within each group: a box goes if a better one that stays has IoU > iou_threshold.

    class_agnostic: all boxes are one group.
    """

    def __init__(self, *, iou_threshold: float = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = share("iou_threshold", iou_threshold)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NMSBase.forward`."""
        from detkit.ops import batched_nms, nms

        if self.class_agnostic:
            keep = nms(boxes, scores, self.iou_threshold)
        else:
            keep = batched_nms(boxes, scores, groups, self.iou_threshold)
        return keep, scores[keep]


@NMS.register()
class SoftNMS(NMSBase):
    """Lowers the score of a box by how much better ones overlap it (1704.04503).

    method: "linear" multiplies by 1 - IoU where IoU > iou_threshold, "gaussian" by exp(-IoU^2 / sigma).
    A box whose score falls to `min_score` or below goes. class_agnostic: all boxes are one group.
    """

    def __init__(
        self,
        *,
        method: Literal["linear", "gaussian"] = "gaussian",
        iou_threshold: float = 0.3,
        sigma: float = 0.5,
        min_score: float = 0.001,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.method, self.sigma = method, above_zero("sigma", sigma)
        self.iou_threshold, self.min_score = share("iou_threshold", iou_threshold), share("min_score", min_score)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NMSBase.forward`."""
        from detkit.ops import soft_nms

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
class DIoUNMS(NMSBase):
    """Greedy suppression by IoU less the distance of the centres (1911.08287, section 3.4).

    iou_threshold: a box goes if that is more with a better one that stays. class_agnostic: all boxes are one group.
    """

    def __init__(self, *, iou_threshold: float = 0.5, class_agnostic: bool = False) -> None:
        super().__init__(class_agnostic=class_agnostic)
        self.iou_threshold = share("iou_threshold", iou_threshold)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `NMSBase.forward`."""
        from detkit.ops import diou_nms

        keep = diou_nms(boxes, scores, self.iou_threshold, self.within(groups))
        return keep, scores[keep]


@NMS.register()
class MatrixNMS(NMSBase):
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
        """See `NMSBase.forward`."""
        from detkit.ops import matrix_nms

        return matrix_nms(boxes, scores, self.within(groups), kernel=self.kernel, sigma=self.sigma)


def share(name: str, value: float) -> float:
    """The value, or ValueError if it is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value} is not in [0, 1]")
    return value


def above_zero(name: str, value: float) -> float:
    """The value, or ValueError if it is not above 0."""
    if not value > 0:
        raise ValueError(f"{name}: {value} must be greater than 0")
    return value
