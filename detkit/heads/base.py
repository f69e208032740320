"""The contract of a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HeadOutputs(NamedTuple):
    """Of each level: logits (B, H * W * a, C), deltas (B, H * W * a, D), and quality (B, H * W * a, 1) or None.

    first: the columns (B, H * W * a, D) of the boxes before the head refined them, for losses on them; None if it
    doesn't.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    quality: list[Tensor] | None = None
    first: list[Tensor] | None = None


class Head(nn.Module):
    """Predicts class logits, box columns and, if wanted, a quality for every anchor.

    The constructor gets derived arguments: `in_channels: tuple[int, ...]` and `anchors_per_cell: tuple[int, ...]`
    of each level, `num_columns: int` (C) and `class_bias: Tensor` (C,), the initial bias of the class loss. A head that
    also takes `box_columns: int` (D of the coder) works with coders of more than 4 columns; one that takes
    `with_quality: bool` works with losses that want a quality branch.

    multiplies: its logits are those of products of probabilities, for losses that take a sigmoid of each column.
    """

    multiplies: bool = False

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs | tuple[list[Tensor], list[Tensor]]:
        """Per level (B, channels, H, W) -> per level logits (B, H * W * a, C), deltas (B, H * W * a, D), quality.

        Anchors in the order of `AnchorGenerator`. A head without a quality branch may return the first two.
        """
        raise NotImplementedError


def per_anchor(x: Tensor, columns: int) -> Tensor:
    """(B, a * columns, H, W) -> (B, H * W * a, columns)."""
    batch, _, height, width = x.shape
    x = x.view(batch, -1, columns, height, width).permute(0, 3, 4, 1, 2)
    return x.reshape(batch, -1, columns)


def joint_logit(a: Tensor, b: Tensor) -> Tensor:
    """Logits a and b, broadcast -> the logit of the product of their probabilities, in float32 or float64.

    a + b - log(1 + e^a + e^b), of which no part overflows.
    """
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (a, b))
    return a + b - F.softplus(b + F.softplus(a - b))
