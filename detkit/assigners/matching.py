"""What assigners share: the best few of a row, who gets an anchor that several want, ignore regions.

A value and an index are packed into one 64-bit number, so that equal values are told apart by the index
on every device, whatever the order in which things are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detkit import boxes as box_ops

LOW = 0xFFFFFFFF
UNCLAIMED = -1


def lowest(values: Tensor, count: int) -> Tensor:
    """(N, M) numbers >= 0 -> (N, count) columns of each row's smallest, of equal ones those that come first."""
    columns = torch.arange(values.shape[1], device=values.device)
    return (_bits(values) | columns).topk(count, dim=1, largest=False).values & LOW


def highest(values: Tensor, count: int) -> Tensor:
    """(N, M) numbers >= 0 -> (N, count) columns of each row's greatest, of equal ones those that come first."""
    columns = LOW - torch.arange(values.shape[1], device=values.device)
    return LOW - ((_bits(values) | columns).topk(count, dim=1).values & LOW)


class Claims:
    """Which of A anchors goes to which object, when each may be wanted by several: to the strongest.

    Of equally strong ones the object of the lower index wins. Claims may come in any order.
    """

    def __init__(self, anchors: Tensor) -> None:
        self._keys = torch.full((len(anchors),), UNCLAIMED, dtype=torch.int64, device=anchors.device)

    def add(self, anchors: Tensor, objects: Tensor, strength: Tensor) -> None:
        """n anchors (n,) are wanted by n objects (n,), with `strength` (n,) float32 >= 0."""
        self._keys.scatter_reduce_(0, anchors, _bits(strength) | (LOW - objects), "amax")

    def drop(self, anchors: Tensor) -> None:
        """Nobody gets the anchors of a mask (A,)."""
        self._keys.masked_fill_(anchors, UNCLAIMED)

    def settle(self) -> tuple[Tensor, Tensor, Tensor]:
        """(A,) whether claimed, the object (0 where not), the strength (undefined where not)."""
        claimed = self._keys != UNCLAIMED
        objects = torch.where(claimed, LOW - (self._keys & LOW), 0)
        return claimed, objects, (self._keys >> 32).int().view(torch.float32)


def in_ignore_region(anchors: Tensor, regions: Tensor, share: float, chunk_elements: int) -> Tensor:
    """(A,) whether more than `share` of an anchor's area lies in one of the regions (I, 4).

    Works on at most `chunk_elements` pairs at a time.
    """
    if not len(regions) or not len(anchors):
        return torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    most, start = torch.empty_like(anchors[:, 0]), 0
    for piece in torch.split(anchors, max(1, chunk_elements // len(regions))):
        most[start : start + len(piece)] = box_ops.pairwise_intersection(piece, regions).amax(dim=1)
        start += len(piece)
    return most > share * box_ops.area(anchors)


def centres_inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Whether the centres of anchors (..., 4) lie within boxes (..., 4), not on their edge; broadcastable."""
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    return ((centres > boxes[..., :2]) & (centres < boxes[..., 2:])).all(dim=-1)


def _bits(values: Tensor) -> Tensor:
    """The bits of float32 numbers >= 0, which sort as the numbers do, in the upper half of 64."""
    return values.float().contiguous().view(torch.int32).long() << 32
