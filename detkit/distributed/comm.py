"""Rank, world size and exchange of Python objects between the ranks of a run. A process alone is rank 0 of 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """The rank of this process over all machines."""
    return dist.get_rank() if _is_up() else 0


def world_size() -> int:
    """The number of processes over all machines."""
    return dist.get_world_size() if _is_up() else 1


def is_first() -> bool:
    """Whether this is rank 0, which writes and prints."""
    return rank() == 0


def all_gather(value: T) -> list[T]:
    """Returns the value of every rank, by rank, on every rank."""
    if world_size() == 1:
        return [value]
    values = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather(value: T) -> list[T]:
    """Returns the value of every rank, by rank, on rank 0; an empty list elsewhere."""
    if world_size() == 1:
        return [value]
    values = [value] * world_size() if is_first() else None
    dist.gather_object(value, values)
    return values or []


def from_first_rank(action: Callable[[], T]) -> T:
    """Runs on rank 0 alone; every rank returns its result or raises its ValueError or OSError."""
    if world_size() == 1:
        return action()
    outcome: list[object] = [None, None]
    if is_first():
        try:
            outcome[0] = action()
        except (ValueError, OSError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[1], Exception):
        raise outcome[1]
    return cast(T, outcome[0])


def _is_up() -> bool:
    return dist.is_available() and dist.is_initialized()
