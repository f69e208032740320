"""Greedy suppression with an output of fixed size, for compiled, exported and captured graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.ops.suppression.hard import check_boxes, check_scores, nms_mask


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    groups: Tensor | None = None,
    score_threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The first `max_output` indices of `nms` (or of `batched_nms`, given groups), and how many are real.

    boxes (N, 4) xyxy, scores (N,), groups (N,) integers -> indices int64 (max_output,), the rest -1, and count
    int64 (). Or, with a leading B everywhere, (B, max_output) and (B,). score_threshold: only boxes that score
    more take part, so no NaN score does. The host never waits for the device.
    Raises ValueError on wrong shapes, dtypes or devices, or a max_output below 1.
    """
    if max_output < 1:
        raise ValueError(f"max_output: {max_output} must be at least 1")
    if boxes.dim() != 3:
        return _one_image(boxes, scores, iou_threshold, max_output, groups, score_threshold)
    for name, other in (("scores", scores), ("groups", groups)):
        if other is not None and other.shape != boxes.shape[:2]:
            raise ValueError(f"{name}: shape {tuple(other.shape)} does not fit boxes {tuple(boxes.shape)}")
    if not len(boxes):
        return boxes.new_empty((0, max_output), dtype=torch.long), boxes.new_empty(0, dtype=torch.long)
    each = zip(boxes, scores, [None] * len(boxes) if groups is None else groups, strict=True)
    kept = [_one_image(b, s, iou_threshold, max_output, g, score_threshold) for b, s, g in each]
    return torch.stack([indices for indices, _ in kept]), torch.stack([count for _, count in kept])


def _one_image(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    groups: Tensor | None,
    score_threshold: float | None,
) -> tuple[Tensor, Tensor]:
    boxes, groups = check_boxes(boxes, groups)
    check_scores(boxes, scores)
    scores = scores.to(boxes.device)
    if score_threshold is not None:
        # Last in the order, they suppress none of the boxes that take part.
        good = scores > score_threshold
        scores = torch.where(good, scores, -torch.inf)
    order = scores.sort(stable=True, descending=True).indices
    keep = nms_mask(boxes[order], None if groups is None else groups[order], iou_threshold)
    if score_threshold is not None:
        keep = keep & good[order]
    # Every kept box knows its place; all others go to one place past the end, which is cut off.
    place = torch.where(keep, keep.cumsum(0) - 1, max_output).clamp(max=max_output)
    indices = order.new_full((max_output + 1,), -1).scatter(0, place, order)[:max_output]
    return indices, keep.sum().clamp(max=max_output)
