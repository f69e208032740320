"""The contract of a box coder."""

from __future__ import annotations

from torch import Tensor, nn


class BoxCoder(nn.Module):
    """Converts between boxes and the deltas that a head predicts."""

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (N, 4) xyxy with positive sides and their anchors (N, 4) xyxy -> deltas (N, 4)."""
        raise NotImplementedError

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (..., 4) and anchors, broadcastable to it -> boxes (..., 4) xyxy."""
        raise NotImplementedError
