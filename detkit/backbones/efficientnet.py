"""EfficientNet (1905.11946) from torchvision's modules, with the levels and the padding of EfficientDet."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from detkit.backbones.adapt import layers_of, set_in_channels
from detkit.backbones.base import Backbone, FreezeAt
from detkit.backbones.pretrained import load_all, read_weights, warn_of_frozen_random
from detkit.layers.norms import NormName, norm_layer
from detkit.layers.padding import SamePadConv2d
from detkit.registry import BACKBONES, Channels, FractionBelowOne, Positive, WeightsStr
from detkit.structures import FeatureShape

LAST_STAGES = {"c3": 3, "c4": 5, "c5": 7}
"""Level -> the last of the stages with its stride; an eighth, which widens for the classifier, is left out."""
MOMENTUM = 0.01


@BACKBONES.register()
class EfficientNet(Backbone):
    """EfficientNet B0 to B4 (1905.11946) without the last 1x1 convolution; levels c3, c4 and c5.

    Args:
        variant: size of the network.
        padding: of convolutions with a stride: `same` as in TensorFlow, where the authors' weights come from (right and
            bottom first), or `equal` on both sides, as torchvision trained its weights.
        norm: normalisation of every block.
        epsilon: of batch normalisation: 0.001 as its authors', 0.00001 for torchvision's weights.
        stochastic_depth: probability to drop the last block of the training, which falls linearly to 0 at the first.
        freeze_at: number of stages, of five strides, that are not trained: 0 trains all, 2 freezes those of strides 2
            and 4.
        in_channels: image channels; weights for three are averaged to any other number.
        weights: file or web address of a torchvision efficientnet state dict, or a name of torchvision weights
            (`IMAGENET1K_V1`); loaded when training starts from scratch.
    """

    def __init__(
        self,
        *,
        variant: Literal["b0", "b1", "b2", "b3", "b4"] = "b0",
        padding: Literal["same", "equal"] = "same",
        norm: NormName = "bn",
        epsilon: Positive = 1e-3,
        stochastic_depth: FractionBelowOne = 0.2,
        freeze_at: FreezeAt = 0,
        in_channels: Channels = 3,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        from torchvision.models import get_model

        self.model, self.norm, self.freeze_at, self.weights = f"efficientnet_{variant}", norm, freeze_at, weights
        body = get_model(
            self.model,
            weights=None,
            norm_layer=norm_layer(norm, epsilon, MOMENTUM),
            stochastic_depth_prob=stochastic_depth,
        )
        self.features = body.features[: max(LAST_STAGES.values()) + 1]
        set_in_channels(self.features, in_channels, average=False)
        if padding == "same":
            pad_strided(self.features)
        self.out_shapes = {
            level: FeatureShape(self.features[stage][-1].out_channels, 2 ** int(level[1:]))
            for level, stage in LAST_STAGES.items()
        }
        last = (-1, 1, 2, *LAST_STAGES.values())[freeze_at]
        self.freeze([self.features[: last + 1]] if freeze_at else [])

    def layer_names(self) -> list[list[str]]:
        return layers_of(self)

    def load_pretrained(self) -> None:
        if self.weights is None:
            warn_of_frozen_random("EfficientNet", self.norm, self.freeze_at)
            return
        stages = tuple(f"features.{stage}." for stage in range(len(self.features)))
        state = read_weights(self.weights, self.model)
        found = {key: value for key, value in state.items() if key.startswith(stages)}
        load_all(
            self,
            found,
            f"backbone.weights: {self.weights} is not a {self.model} of torchvision",
            stem="features.0.0.weight",
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> c3, c4 and c5, of strides 8, 16 and 32."""
        features, x, start = {}, images, 0
        for level, stage in LAST_STAGES.items():
            x = features[level] = self.features[start : stage + 1](x)
            start = stage + 1
        return features


def pad_strided(module: nn.Module) -> None:
    """Gives the convolutions of a module that have a stride the padding of TensorFlow."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.stride[0] > 1:
                setattr(parent, name, SamePadConv2d.like(child))
