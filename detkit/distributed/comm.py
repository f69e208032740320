"""What a process asks of torch.distributed: rank, world size, what rank 0 computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from detkit.distributed.coordinator import T


def from_first_rank(action: Callable[[], T]) -> T:
    """Runs on rank 0 alone; every rank gets what it gives back, or raises what it raises."""
    if not (dist.is_available() and dist.is_initialized()):
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except (ValueError, OSError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


def rank_and_world_size() -> tuple[int, int]:
    """(0, 1) unless torch.distributed is up."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
