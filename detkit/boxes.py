"""Pure functions on boxes: (..., 4) floats, (x1, y1, x2, y2) in pixels, no offset by one.

torchvision is imported on first use, because the import takes seconds that reading a config should not cost.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from detkit.utils.types import Floats


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...) square pixels; negative sides are not clamped."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def sides(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2) width and height."""
    return boxes[..., 2:] - boxes[..., :2]


def centres(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 4) centre, width and height."""
    return torch.cat((centres(boxes), sides(boxes)), dim=-1)


def edge_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Points (..., 2) and boxes (..., 4), broadcast -> (..., 4) distances to the left, top, right and bottom edge.

    Positive inside the box (FCOS, 1904.01355, equation 1).
    """
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """Points (..., 2) and boxes (..., 4) -> (...) 1 in the centre, 0 at an edge and outside (1904.01355, eq. 3)."""
    left, top, right, bottom = edge_distances(points, boxes).clamp(min=0).unbind(-1)

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b) / torch.maximum(a, b).clamp(min=1e-6)

    return (ratio(left, right) * ratio(top, bottom)).sqrt()


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4) and (M, 4) -> (N, M) intersection over union, 0 where both areas are 0."""
    from torchvision.ops import box_iou

    iou: Tensor = box_iou(a, b)
    return iou.nan_to_num_(0.0)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4), broadcastable -> (...) intersection over union of each pair, 0 where both areas are 0."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return (shared / (area(a) + area(b) - shared)).nan_to_num(0.0)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) and (..., 4), broadcastable -> (...) IoU less the share of their hull that neither covers (1902.09630).

    In [-1, 1] for valid boxes, 0 where the hull has no area.
    """
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared, hull = inner[..., 0] * inner[..., 1], outer[..., 0] * outer[..., 1]
    union = area(a) + area(b) - shared
    return (shared / union - (hull - union) / hull).nan_to_num(0.0)


def pairwise_intersection(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4) and (M, 4) -> (N, M) area of the intersection in square pixels."""
    lower = torch.maximum(a[:, None, :2], b[None, :, :2])
    upper = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (upper - lower).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def clip(boxes: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """(N, 4) -> boxes cut to [0, width] x [0, height]."""
    x = boxes[..., 0::2].clamp(min=0).clamp(max=width)
    y = boxes[..., 1::2].clamp(min=0).clamp(max=height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def rescale(boxes: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """(N, 4) boxes of an image of (height, width) `from_size` -> of the same image at `to_size`."""
    scale_y, scale_x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))


def to_xywh(boxes: Floats) -> Floats:
    """(N, 4) xyxy -> x, y, width, height, as COCO files have them; a side of infinite corners is NaN."""
    with np.errstate(invalid="ignore"):
        return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def to_xyxy(boxes: Floats) -> Floats:
    """(N, 4) x, y, width, height -> xyxy; a corner of infinite sides is NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
