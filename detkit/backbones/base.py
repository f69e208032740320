"""The contract of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Interval, MinLen, doc
from torch import Tensor, nn

from detkit.structures import FeatureShape

FreezeAt = Annotated[int, Interval(ge=0, le=5), doc("between 0 (all train) and 5 (none trains)")]
OutFeatures = Annotated[
    Annotated[list[str], MinLen(1)] | None, doc("a list of one level or more; null for c3, c4 and c5")
]


class Backbone(nn.Module):
    """Turns images into feature maps.

    A subclass sets `out_shapes` in its constructor: level name -> `FeatureShape`, finest level
    first. The keyword-only, annotated arguments of its constructor are its config keys.
    """

    out_shapes: dict[str, FeatureShape]
    frozen_modules: Sequence[nn.Module] = ()

    def freeze(self, modules: Sequence[nn.Module]) -> None:
        """Takes the parameters of `modules` out of training; `train` leaves these in evaluation mode."""
        self.frozen_modules = modules
        for module in modules:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Sets training mode for all but the frozen modules, whose batch statistics must not change."""
        super().train(mode)
        for module in self.frozen_modules:
            module.eval()
        return self

    def layer_names(self) -> Sequence[Sequence[str]]:
        """Names of modules and parameters of each layer, from the image on, for `optimizer.layer_decay`.

        Every parameter must be in one layer; empty for a backbone that has no order, which that key then refuses.
        `adapt.layers_of` finds them where modules were added in the order in which they are used.
        """
        return ()

    def load_pretrained(self) -> None:
        """Loads published weights, if the part has any; called once when training starts from scratch."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> level name -> (B, channels, ceil(H / stride), ceil(W / stride))."""
        raise NotImplementedError
