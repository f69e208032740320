"""The contract of a backbone, which a neck shares: features in, features out."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.structures import FeatureShape


class Backbone(nn.Module):
    """Turns images into feature maps.

    A subclass sets `out_shapes` in its constructor: level name -> `FeatureShape`, finest level
    first. Its constructor takes keyword-only, annotated arguments; those are its config keys.
    """

    out_shapes: dict[str, FeatureShape]

    def load_pretrained(self) -> None:
        """Called once when training starts from scratch; loads published weights if the part has any."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> level name -> (B, channels, ceil(H / stride), ceil(W / stride))."""
        raise NotImplementedError
