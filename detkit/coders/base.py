"""The contract of a box coder."""

from __future__ import annotations

from torch import Tensor, nn


class BoxCoder(nn.Module):
    """Converts between boxes and the D columns that a head predicts for each of them.

    num_columns: D. With 4, a loss may compare encoded boxes with predicted columns one by one. needs_inside: it encodes
    only boxes that contain the anchor's middle.
    """

    num_columns: int = 4
    needs_inside: bool = False

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (N, 4) xyxy with positive sides and their anchors (N, 4) xyxy -> deltas (N, 4).

        The four numbers that box losses in delta space compare; a coder of more columns says what they are.
        """
        raise NotImplementedError

    def columns(self, encoded: Tensor) -> Tensor:
        """Encoded boxes (N, 4) -> columns (N, D) that decode to these boxes."""
        return encoded

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (..., D) and anchors (..., 4), broadcastable to each other -> boxes (..., 4) xyxy."""
        raise NotImplementedError
