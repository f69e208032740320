"""What the summed losses of a step are divided by."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.base import Normalizer
from detkit.registry import NORMALIZERS


@NORMALIZERS.register()
class PositiveCount(Normalizer):
    """Positives of the whole batch: over every image, micro-batch and rank, at least one in all."""

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> number of positives of this micro-batch."""
        return (labels >= 0).sum()
