"""The contract of a neck."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.structures import FeatureShape


class Neck(nn.Module):
    """Turns a backbone's feature maps into the levels a head looks at.

    The constructor is handed `in_shapes: dict[str, FeatureShape]` (derived, never from a config) and
    sets `out_shapes`, finest level first.
    """

    out_shapes: dict[str, FeatureShape]

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Level name -> (B, channels, H, W), in; the same for the levels of `out_shapes`, out."""
        raise NotImplementedError
