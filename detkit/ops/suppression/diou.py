"""Suppression by distance IoU (1911.08287, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.native.library import fall_back, native
from detkit.ops.suppression.hard import check_boxes, check_scores, greedy_mask, to_float
from detkit.ops.suppression.soft import overlaps


def diou_nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None) -> Tensor:
    """Indices of the boxes that stay, by descending score, then index: int64 (K,).

    boxes (N, 4) xyxy, scores (N,), groups (N,) integers. A box goes if a better one of its group that stays has
    IoU - d^2 / c^2 > threshold (equation 16): d the distance of their centres, c the diagonal of the
    smallest box around both. So boxes whose centres are far apart are kept more easily than by IoU alone.
    Computed in float64 on the CPU, wherever the boxes are. NaN scores come first, as in `nms`; a box with a
    coordinate that is not finite overlaps nothing. Raises ValueError on wrong shapes, dtypes or devices.
    """
    boxes, groups = check_boxes(boxes, groups)
    check_scores(boxes, scores)
    device = boxes.device
    boxes, scores, groups = boxes.cpu(), to_float(scores).cpu(), None if groups is None else groups.cpu()
    if native.cpu:
        keep: Tensor = torch.ops.detkit.diou_nms.default(boxes, scores, groups, float(threshold))
    else:
        fall_back("cpu")
        keep = reference(boxes, scores, groups, threshold)
    return keep.to(device)


def reference(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
    """The same in plain PyTorch, one box at a time; what the native op is tested against."""
    order = scores.sort(descending=True, stable=True).indices
    boxes, groups = boxes[order].double(), None if groups is None else groups[order]
    keep = greedy_mask(
        boxes, groups, lambda i: overlaps(boxes[i], boxes[i:]) - distances(boxes[i], boxes[i:]) > threshold
    )
    return order[keep]


def distances(box: Tensor, others: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull, boxes (..., 4) broadcastable."""
    way = (box[..., :2] + box[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    hull = torch.maximum(box[..., 2:], others[..., 2:]) - torch.minimum(box[..., :2], others[..., :2])
    return way.square().sum(dim=-1) / hull.square().sum(dim=-1)


if native.cpu:

    @torch.library.register_fake("detkit::diou_nms")  # type: ignore[untyped-decorator]
    def _(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
        return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)
