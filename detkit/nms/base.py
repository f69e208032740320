"""The contract of a suppression part."""

from __future__ import annotations

from torch import Tensor, nn


class NonMaxSuppression(nn.Module):
    """The contract of a suppression part.

    class_agnostic: all boxes are one group; else a box touches only those of its class.
    """

    def __init__(self, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.class_agnostic = class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), groups (N,) -> indices to keep (M,) and their scores (M,), descending.

        The scores are new ones where the method lowers them instead of dropping boxes.
        """
        raise NotImplementedError

    def within(self, groups: Tensor) -> Tensor | None:
        """The groups, None if all boxes are one."""
        return None if self.class_agnostic else groups


def share(name: str, value: float) -> float:
    """The value, or ValueError if it is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value} is not in [0, 1]")
    return value


def above_zero(name: str, value: float) -> float:
    """The value, or ValueError if it is not above 0."""
    if not value > 0:
        raise ValueError(f"{name}: {value} must be greater than 0")
    return value
