"""Matrix suppression (SOLOv2, 2003.10152, section 3.3): every score is lowered at once, without a loop."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit.ops.suppression.hard import check_boxes, check_scores
from detkit.ops.suppression.soft import overlaps

CHUNK = 2_000_000
"""Pairs of boxes looked at at a time, so that memory stays constant; the result does not depend on it."""


def matrix_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None = None,
    *,
    kernel: Literal["linear", "gaussian"] = "gaussian",
    sigma: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Indices int64 (N,) of all boxes by lowered score, descending, then index; and the lowered scores (N,).

    boxes (N, 4) xyxy, scores (N,), groups (N,) integers. Box j is lowered by the least, over the better boxes
    i of its group, of f(iou_ij) / f(iou of i with the better box it overlaps most) (equation 5), with
    f(iou) = 1 - iou ("linear") or exp(-iou^2 / sigma) ("gaussian"). A box that equals a better one counts as
    gone: it lowers no other under "linear". Of equal scores the first is the better. Plain PyTorch on every
    device; float64 inside. A box with a coordinate that is not finite overlaps nothing.
    Raises ValueError on wrong shapes, dtypes or devices.
    """
    if kernel not in ("linear", "gaussian"):
        raise ValueError(f"kernel: {kernel!r} is neither 'linear' nor 'gaussian'")
    if not sigma > 0:
        raise ValueError(f"sigma: {sigma} must be greater than 0")
    boxes, groups = check_boxes(boxes, groups)
    check_scores(boxes, scores)
    order = scores.sort(descending=True, stable=True).indices
    ranked, their_groups = boxes[order].double(), None if groups is None else groups[order]
    factors = decay(ranked, their_groups, kernel == "gaussian", sigma)
    lowered = torch.empty_like(scores)
    lowered[order] = (scores[order].double() * factors).to(scores.dtype)
    indices = lowered.sort(descending=True, stable=True).indices
    return indices, lowered[indices]


def decay(boxes: Tensor, groups: Tensor | None, gaussian: bool, sigma: float) -> Tensor:
    """(N, 4) boxes, the best first -> (N,) what each score is multiplied by, in [0, 1]."""
    factors, most = boxes.new_ones(len(boxes)), boxes.new_zeros(len(boxes))
    step = max(1, CHUNK // max(1, len(boxes)))
    # In turn from the best: what a piece needs of the boxes before it is known when its turn comes.
    for start in range(0, len(boxes), step):
        end = min(start + step, len(boxes))
        iou = overlaps(boxes[:end, None], boxes[None, start:end])
        better = torch.ones_like(iou, dtype=torch.bool).triu(1 - start)  # row i before column start + j
        if groups is not None:
            better &= groups[:end, None] == groups[None, start:end]
        iou = torch.where(better, iou, 0)
        most[start:end] = iou.amax(dim=0)
        highest = most[:end, None]
        if gaussian:
            ratio = torch.exp((highest.square() - iou.square()) / sigma)
        else:
            ratio = torch.where(highest < 1, (1 - iou) / (1 - highest), 1)  # a box that is gone lowers no other
        factors[start:end] = torch.where(better, ratio, 1).amin(dim=0).clamp(max=1)
    return factors
