"""Figures of an evaluation that a hook watches: which there are, and which of two is better."""

from __future__ import annotations

from typing import Literal

from detkit.evaluate.report import METRIC_NAMES
from detkit.registry.arguments import nearest

Mode = Literal["max", "min"]
WATCHED = tuple(f"val/{name}" for name in METRIC_NAMES)


def check_metric(name: str) -> str:
    """The name; ValueError with the nearest one for a figure that no evaluation gives."""
    if name not in WATCHED:
        raise ValueError(f"metric: {name!r} is not a figure{nearest(name, WATCHED)} Known: {', '.join(WATCHED)}")
    return name


def is_better(value: float, best: float | None, mode: Mode, by: float = 0.0) -> bool:
    """Whether `value` is better than `best` by more than `by`."""
    if best is None:
        return True
    return value > best + by if mode == "max" else value < best - by
