"""The contract of a backbone."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval, MinLen, doc
from torch import Tensor, nn

from detkit.structures import FeatureShape

FreezeAt = Annotated[int, Interval(ge=0, le=5), doc("between 0 (all train) and 5 (none trains)")]
OutFeatures = Annotated[
    Annotated[list[str], MinLen(1)] | None, doc("a list of one level or more; null for c3, c4 and c5")
]
"""Number of stages that are not trained: 0 trains all, 5 none."""


class Backbone(nn.Module):
    """Turns images into feature maps.

    A subclass sets `out_shapes` in its constructor: level name -> `FeatureShape`, finest level
    first. The keyword-only, annotated arguments of its constructor are its config keys.
    """

    out_shapes: dict[str, FeatureShape]

    def load_pretrained(self) -> None:
        """Loads published weights, if the part has any; called once when training starts from scratch."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> level name -> (B, channels, ceil(H / stride), ceil(W / stride))."""
        raise NotImplementedError
