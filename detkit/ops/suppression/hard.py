"""Greedy (hard) non-maximum suppression, exact as torchvision.ops.nms.

The order is defined: descending score, then index; NaN scores come first, as in torch.sort. A box that holds
a NaN, that has no positive width and height or whose area overflows overlaps nothing: it is always kept and
suppresses no other (for thresholds >= 0). A threshold of 1 or more, or NaN, keeps every box.

Where each way of computing it lives:
    CPU       nms and nms_mask: csrc/cpu/hard_nms.cpp, over builds for AVX-512, AVX2 and any CPU
    CUDA      nms_mask: csrc/cuda/hard_nms.cu; nms: `_sorted_nms` below, which sorts around it
    fake      shapes for torch.compile and export: the end of this file
    fallback  without the native library: torchvision (`_through_torchvision`), else `reference_mask`
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.native.library import fall_back, native

# Looked up once: the attribute walk takes a tenth of the time of a small call.
_native_nms = torch.ops.detkit.nms.default if native.cpu else None


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that stay, by descending score: int64 (K,).

    boxes: (N, 4) xyxy. scores: (N,). A box goes if its IoU with a better one that stays is > iou_threshold.
    float16 and bfloat16 are computed in float32, float64 in float64. Raises ValueError on wrong shapes,
    dtypes or devices.
    """
    return _nms(boxes, scores, None, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """`nms` inside each group: boxes of different groups don't touch each other.

    groups: (N,) integers, in any range. No coordinate is shifted, so nothing is lost on large images.
    """
    return _nms(boxes, scores, groups, iou_threshold)


def nms_mask(boxes: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """bool (N,): which boxes stay, for boxes that are sorted, the best first. Same length always, no sync."""
    boxes, groups = check_boxes(boxes, groups)
    if native.has(boxes):
        mask: Tensor = torch.ops.detkit.nms_mask.default(boxes, groups, float(iou_threshold))
        return mask
    fall_back(boxes.device.type)
    return reference_mask(boxes, groups, iou_threshold)


def reference_mask(boxes: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """`nms_mask` in plain PyTorch, one row at a time; what the native ops are tested against."""
    area = box_ops.area(boxes)

    def over(i: int) -> Tensor:
        low, high = torch.maximum(boxes[i, :2], boxes[i:, :2]), torch.minimum(boxes[i, 2:], boxes[i:, 2:])
        inter = (high - low).clamp(min=0).prod(dim=1)
        return (inter / (area[i] + area[i:] - inter)).double() > iou_threshold

    return greedy_mask(boxes, groups, over)


def greedy_mask(boxes: Tensor, groups: Tensor | None, overlapping: Callable[[int], Tensor]) -> Tensor:
    """bool (N,): the sorted boxes that stay; overlapping(i): which boxes from i on the box i suppresses."""
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if not keep[i]:
            continue
        over = overlapping(i)
        if groups is not None:
            over &= groups[i:] == groups[i]
        over[0] = False  # a box does not suppress itself
        keep[i:] &= ~over
    return keep


def _nms(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    boxes, groups = check_boxes(boxes, groups)
    check_scores(boxes, scores)
    if _native_nms is not None and (boxes.is_cpu or native.has(boxes)):
        keep: Tensor = _native_nms(boxes, to_float(scores), groups, float(iou_threshold))
        return keep
    fall_back(boxes.device.type)
    return _through_torchvision(boxes, scores, groups, float(iou_threshold))


def check_scores(boxes: Tensor, scores: Tensor) -> None:
    """ValueError unless `scores` is floating (N,) beside boxes (N, 4), on their device."""
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores: shape {tuple(scores.shape)} does not fit {len(boxes)} boxes; (N,) is needed")
    if not scores.is_floating_point():
        raise ValueError(f"scores: {scores.dtype} is not a floating dtype")
    if not (scores.is_cpu and boxes.is_cpu) and scores.device != boxes.device:
        raise ValueError(f"scores are on {scores.device}, boxes on {boxes.device}")


def to_float(x: Tensor) -> Tensor:
    """Contiguous, float32 or float64."""
    if x.dtype is not torch.float32 and x.dtype is not torch.float64:
        x = x.float()
    return x if x.is_contiguous() else x.contiguous()


def check_boxes(boxes: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Checked, contiguous, in the dtypes of the kernels."""
    shape = boxes.shape
    if len(shape) != 2 or shape[1] != 4:
        raise ValueError(f"boxes: shape {tuple(shape)}; (N, 4) xyxy is needed")
    if not boxes.is_floating_point():
        raise ValueError(f"boxes: {boxes.dtype} is not a floating dtype")
    if groups is not None:
        if groups.shape != shape[:1]:
            raise ValueError(f"groups: shape {tuple(groups.shape)} does not fit {shape[0]} boxes; (N,) is needed")
        if groups.is_floating_point() or groups.is_complex():
            raise ValueError(f"groups: {groups.dtype} is not an integer dtype")
        if groups.device != boxes.device:
            raise ValueError(f"groups are on {groups.device}, boxes on {boxes.device}")
        groups = groups.long().contiguous()
    return to_float(boxes), groups


def _sorted_nms(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """detkit::nms around the mask kernel, for CUDA: sorting is PyTorch's."""
    order = scores.sort(stable=True, descending=True).indices
    if groups is None:
        return order[torch.ops.detkit.nms_mask(boxes[order], None, iou_threshold)]
    # The kernel skips blocks that share no group, so each group's boxes are brought together.
    ranked = groups[order]
    together = ranked.sort(stable=True).indices
    rows = order[together]
    mask = torch.ops.detkit.nms_mask(boxes[rows], ranked[together], iou_threshold)
    return order[torch.empty_like(mask).scatter_(0, together, mask)]


def _through_torchvision(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
    """The fall-back; in plain PyTorch where torchvision can't be used either."""
    try:
        from torchvision.ops import nms as torchvision_nms
    except (ImportError, RuntimeError):
        torchvision_nms = None
    order = scores.sort(stable=True, descending=True).indices
    if torchvision_nms is None:
        return order[reference_mask(boxes[order], None if groups is None else groups[order], iou_threshold)]
    # Ranks in place of scores: torchvision wants one dtype for both, and ties are settled by now.
    ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=torch.float64)
    boxes = boxes[order]
    exact = ranks.to(boxes.dtype) if len(order) < 2**24 else ranks
    mask = torch.zeros(len(order), dtype=torch.bool, device=boxes.device)
    if groups is None:
        mask[torchvision_nms(boxes, exact, iou_threshold)] = True
    else:
        groups = groups[order]
        for group in torch.unique(groups):
            own = (groups == group).nonzero()[:, 0]
            mask[own[torchvision_nms(boxes[own], exact[own], iou_threshold)]] = True
    return order[mask]


if native.cpu:

    @torch.library.register_fake("detkit::nms")  # type: ignore[untyped-decorator]
    def _(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
        kept = torch.library.get_ctx().new_dynamic_size()
        return boxes.new_empty(kept, dtype=torch.long)

    @torch.library.register_fake("detkit::nms_mask")  # type: ignore[untyped-decorator]
    def _(boxes: Tensor, groups: Tensor | None, iou_threshold: float) -> Tensor:
        return boxes.new_empty(boxes.shape[0], dtype=torch.bool)


if native.cuda:
    torch.library.register_kernel("detkit::nms", "cuda", _sorted_nms)
