"""Soft non-maximum suppression (1704.04503): scores are lowered instead of boxes dropped."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit.native.library import fall_back, native
from detkit.ops.suppression.hard import check_boxes, check_scores, to_float


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None = None,
    *,
    method: Literal["linear", "gaussian"] = "linear",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.001,
) -> tuple[Tensor, Tensor]:
    """Indices int64 (M,) of the boxes whose score stays above `min_score`, and those scores (M,).

    boxes (N, 4) xyxy, scores (N,), groups (N,) integers: boxes of different groups don't touch each other.
    The best box is taken, of equal ones the first; every other score of its group is multiplied by 1 - IoU
    where IoU > iou_threshold ("linear", equation 1) or by exp(-IoU^2 / sigma) ("gaussian", equation 3); and
    so on. Ordered by the new scores, descending, then by index. Computed in float64 on the CPU, wherever the
    boxes are, since every step waits for the one before. A box with a coordinate that is not finite overlaps
    nothing; a NaN score is not above `min_score`. Not differentiable.
    Raises ValueError on wrong shapes, dtypes or devices.
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"method: {method!r} is neither 'linear' nor 'gaussian'")
    if not sigma > 0:
        raise ValueError(f"sigma: {sigma} must be greater than 0")
    boxes, groups = check_boxes(boxes, groups)
    check_scores(boxes, scores)
    device, dtype = scores.device, scores.dtype
    boxes, scores = boxes.detach().cpu(), to_float(scores).detach().cpu()
    groups = None if groups is None else groups.cpu()
    if native.cpu:
        indices, lowered = torch.ops.detkit.soft_nms.default(
            boxes, scores, groups, method == "gaussian", float(iou_threshold), float(sigma), float(min_score)
        )
    else:
        fall_back("cpu")
        indices, lowered = reference(boxes, scores, groups, method == "gaussian", iou_threshold, sigma, min_score)
    return indices.to(device), lowered.to(device, dtype)


def reference(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    gaussian: bool,
    iou_threshold: float,
    sigma: float,
    min_score: float,
) -> tuple[Tensor, Tensor]:
    """The same in plain PyTorch, one box at a time; what the native op is tested against."""
    exact, now = boxes.double(), scores.double()
    left = now > min_score
    lowered, taken = torch.zeros_like(now), torch.zeros_like(left)
    while left.any():
        best = now[left].max()
        i = int((left & (now == best)).nonzero()[0])
        lowered[i], taken[i], left[i] = now[i], True, False
        iou = overlaps(exact[i], exact)
        factor = torch.exp(-iou.square() / sigma) if gaussian else torch.where(iou > iou_threshold, 1 - iou, 1)
        if groups is not None:
            factor = torch.where(groups == groups[i], factor, 1)
        now = now * factor
        left &= now > min_score
    rows = taken.nonzero()[:, 0]
    found = lowered[rows].to(scores.dtype)
    order = found.sort(descending=True, stable=True).indices
    return rows[order], found[order]


def overlaps(box: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes (..., 4) with others (..., 4), broadcastable; 0 where that is not a finite number above 0."""
    sides = torch.minimum(box[..., 2:], others[..., 2:]) - torch.maximum(box[..., :2], others[..., :2])
    inter = sides.prod(dim=-1)
    area, areas = ((b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (box, others))
    iou = inter / (area + areas - inter)
    return torch.where((sides > 0).all(dim=-1) & iou.isfinite(), iou, 0)


if native.cpu:

    @torch.library.register_fake("detkit::soft_nms")  # type: ignore[untyped-decorator]
    def _(
        boxes: Tensor,
        scores: Tensor,
        groups: Tensor | None,
        gaussian: bool,
        iou_threshold: float,
        sigma: float,
        min_score: float,
    ) -> tuple[Tensor, Tensor]:
        kept = torch.library.get_ctx().new_dynamic_size()
        return boxes.new_empty(kept, dtype=torch.long), scores.new_empty(kept)
