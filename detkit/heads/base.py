"""The contract of a head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Head(nn.Module):
    """Predicts class logits and box deltas for every anchor.

    The constructor gets derived arguments: `in_channels: tuple[int, ...]` and `anchors_per_cell: tuple[int, ...]`
    of each level, `num_columns: int` (C) and `class_bias: Tensor` (C,), the initial bias of the class loss.
    """

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level (B, channels, H, W) -> per level logits (B, H * W * a, C), deltas (B, H * W * a, 4).

        Anchors in the order of `AnchorGenerator`.
        """
        raise NotImplementedError


def per_anchor(x: Tensor, columns: int) -> Tensor:
    """(B, a * columns, H, W) -> (B, H * W * a, columns)."""
    batch, _, height, width = x.shape
    x = x.view(batch, -1, columns, height, width).permute(0, 3, 4, 1, 2)
    return x.reshape(batch, -1, columns)
