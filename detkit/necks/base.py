"""The contract of a neck."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from detkit.structures import FeatureShape

ExtraLevels = Annotated[int, Interval(ge=0, le=10)]
"""Number of levels on top of the backbone's."""


class Neck(nn.Module):
    """Turns a backbone's feature maps into the levels of a head.

    The constructor gets `in_shapes: dict[str, FeatureShape]` (derived, never from a config) and sets `out_shapes`,
    finest level first.
    """

    out_shapes: dict[str, FeatureShape]

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Level name -> (B, channels, H, W) of the backbone, to the same for the levels of `out_shapes`."""
        raise NotImplementedError


def pyramid_level(channels: int, stride: int) -> tuple[str, FeatureShape]:
    """Name and shape of a pyramid level: p3 for stride 8, and so on."""
    return f"p{stride.bit_length() - 1}", FeatureShape(channels, stride)


def extra_strides(last: int, count: int) -> list[int]:
    """Strides of `count` levels on top of one of stride `last`, each twice the one before."""
    return [last * 2 ** (i + 1) for i in range(count)]
