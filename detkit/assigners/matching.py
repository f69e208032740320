"""Selection for assigners: the best few of a row, and which object gets an anchor that several claim.

A value and an index are packed into one 64-bit number, so that equal values are ordered by the index
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


class Conflicts:
    """Gives each of A anchors to one of the objects that claim it: to the one with the strongest claim.

    Of equally strong claims that of the object with the lower index wins. Claims may come in any order.
    """

    def __init__(self, anchors: Tensor) -> None:
        self._keys = torch.full((len(anchors),), UNCLAIMED, dtype=torch.int64, device=anchors.device)

    def add(self, anchors: Tensor, objects: Tensor, strength: Tensor) -> None:
        """Adds n claims: of objects (n,) to anchors (n,), with `strength` (n,) float32 >= 0."""
        self._keys.scatter_reduce_(0, anchors, _bits(strength) | (LOW - objects), "amax")

    def drop(self, anchors: Tensor) -> None:
        """Drops all claims to the anchors of a mask (A,)."""
        self._keys.masked_fill_(anchors, UNCLAIMED)

    def resolve(self) -> tuple[Tensor, Tensor, Tensor]:
        """(A,) whether claimed, the object (0 where not), the strength (undefined where not)."""
        claimed = self._keys != UNCLAIMED
        objects = torch.where(claimed, LOW - (self._keys & LOW), 0)
        return claimed, objects, (self._keys >> 32).int().view(torch.float32)


def centres_inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Whether the centres of anchors (..., 4) lie within boxes (..., 4), not on their edge; broadcastable."""
    centres = box_ops.centres(anchors)
    return ((centres > boxes[..., :2]) & (centres < boxes[..., 2:])).all(dim=-1)


def _bits(values: Tensor) -> Tensor:
    """The bits of float32 numbers >= 0, which sort as the numbers do, in the upper half of 64."""
    return values.float().contiguous().view(torch.int32).long() << 32
