"""Box voting: what suppression keeps, moved to the weighted mean of the boxes that it removes."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.ops.suppression.hard import check_boxes, check_scores
from detkit.ops.suppression.soft import overlaps

CHUNK = 2_000_000
"""Pairs of boxes looked at at a time, so that memory stays constant; the result does not depend on it."""


def vote_boxes(
    boxes: Tensor,
    scores: Tensor,
    keep: Tensor,
    groups: Tensor | None = None,
    *,
    iou_threshold: float = 0.01,
    sigma: float | None = 0.025,
) -> Tensor:
    """The kept boxes (K, 4), each replaced by the mean of the boxes of its group that overlap it, itself among them.

    boxes (N, 4) xyxy and scores (N,), 0 or more, before suppression; keep (K,) indices that it returned; groups (N,)
    integers. Voter i of box j weighs score_i * exp(-(1 - iou_ij)^2 / sigma) if iou_ij > iou_threshold: the score voting
    of PAA (2007.08103, section 3.4), whose sigma is 0.025. sigma=None drops the exponential, which with a threshold of
    0.5 is the box voting of 1505.01749, section 4.2 (the paper's IoU of exactly the threshold also votes there). Scores
    stay as they are. A box whose voters weigh nothing, or with a coordinate that is not finite, stays where it is.
    Plain PyTorch on every device; float64 inside. Raises ValueError on wrong shapes, dtypes or devices, on
    negative scores, and on a sigma that is not above 0.
    """
    dtype = boxes.dtype
    boxes, groups = check_boxes(boxes, groups)
    check_scores(boxes, scores)
    check_voting(scores, keep, sigma)
    every, weights = boxes.double(), scores.double()
    parts = []
    for rows in torch.split(keep, max(1, CHUNK // max(1, len(boxes)))):
        iou = overlaps(every[rows, None], every[None])
        votes = weights * (torch.exp(-((1 - iou) ** 2) / sigma) if sigma is not None else torch.ones_like(iou))
        counts = iou > iou_threshold
        if groups is not None:
            counts &= groups[rows, None] == groups[None]
        votes = torch.where(counts, votes, 0)
        total = votes.sum(dim=1, keepdim=True)
        # Beside the box, so that equal voters move it by nothing at all.
        shifts = torch.where(counts[..., None], every[None] - every[rows, None], 0)
        moved = every[rows] + (votes[..., None] * shifts).sum(dim=1) / total
        parts.append(torch.where(total > 0, moved, every[rows]))
    return torch.cat(parts).to(dtype)


def check_voting(scores: Tensor, keep: Tensor, sigma: float | None) -> None:
    """Raises ValueError unless the scores can weigh, `keep` can index them and sigma divides."""
    if sigma is not None and not sigma > 0:
        raise ValueError(f"sigma: {sigma} must be greater than 0, or None")
    if keep.dtype != torch.int64 or keep.dim() != 1:
        raise ValueError(f"keep: {tuple(keep.shape)} {keep.dtype} must be a list of int64 indices")
    if bool((scores < 0).any()):
        raise ValueError(f"scores: {float(scores.min())} must be at least 0, as scores weigh the boxes")
