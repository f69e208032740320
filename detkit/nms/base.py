"""The contract of non-maximum suppression."""

from __future__ import annotations

from torch import Tensor, nn


class NonMaxSuppression(nn.Module):
    """Suppresses duplicate detections: drops boxes or lowers their scores.

    Args:
        class_agnostic: whether boxes of different classes suppress each other.
    """

    def __init__(self, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.class_agnostic = class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), groups (N,), such as classes -> kept indices (M,), scores (M,), descending.

        The scores are lower than before if the method lowers scores instead of dropping boxes.
        """
        raise NotImplementedError

    def within(self, groups: Tensor) -> Tensor | None:
        """The groups; None if the suppression is class-agnostic."""
        return None if self.class_agnostic else groups
