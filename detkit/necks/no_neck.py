"""No neck at all: the head looks at the backbone's own maps."""

from __future__ import annotations

from torch import Tensor

from detkit.necks.base import Neck
from detkit.registry import NECKS
from detkit.structures import FeatureShape


@NECKS.register()
class NoNeck(Neck):
    """Passes the backbone's levels on unchanged."""

    def __init__(self, *, in_shapes: dict[str, FeatureShape]) -> None:
        super().__init__()
        self.out_shapes = dict(in_shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features
