"""MobileNetV3-Large (1905.02244) from torchvision's modules, with the levels that SSDlite uses."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.backbones.adapt import layers_of
from detkit.backbones.base import Backbone
from detkit.backbones.pretrained import load_all, read_weights, warn_of_frozen_random
from detkit.layers.convs import mobile_norm
from detkit.layers.norms import NormName
from detkit.registry import BACKBONES, Channels, WeightsStr
from detkit.structures import FeatureShape

SPLIT = 13
"""Index of the block that goes from stride 16 to 32; its expansion is the last map of stride 16."""


@BACKBONES.register()
class MobileNetV3(Backbone):
    """MobileNetV3-Large with the levels c4, the expansion layer of the 13th block, and c5, the last map (1905.02244).

    Args:
        reduced_tail: halve the channels from c4 on, as the paper does for detection (section 6.3); published weights
            are of the full model.
        norm: normalisation of every block, with MobileNet's epsilon of 0.001.
        in_channels: image channels; weights for three are averaged to any other number.
        weights: file or web address of a torchvision mobilenet_v3_large state dict, or a name of torchvision weights
            (`IMAGENET1K_V2`); loaded when training starts from scratch.
    """

    def __init__(
        self,
        *,
        reduced_tail: bool = True,
        norm: NormName = "bn",
        in_channels: Channels = 3,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v3_large

        if weights is not None and reduced_tail:
            raise ValueError("weights: published weights need reduced_tail: false")
        self.norm, self.weights = norm, weights
        self.features = mobilenet_v3_large(reduced_tail=reduced_tail, norm_layer=mobile_norm(norm)).features
        if in_channels != 3:
            stem = nn.Conv2d(in_channels, self.features[0][0].out_channels, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out")
            self.features[0][0] = stem
        expansion = self.features[SPLIT].block[0]
        self.out_shapes = {
            "c4": FeatureShape(expansion.out_channels, 16),
            "c5": FeatureShape(self.features[-1].out_channels, 32),
        }

    def layer_names(self) -> list[list[str]]:
        return layers_of(self)

    def load_pretrained(self) -> None:
        if self.weights is None:
            way_out = "Give backbone.weights and backbone.reduced_tail=false, or set backbone.norm=bn"
            warn_of_frozen_random("MobileNetV3", self.norm, way_out=way_out)
            return
        state = read_weights(self.weights, "mobilenet_v3_large")
        features = {key: value for key, value in state.items() if key.startswith("features.")}
        wrong = f"backbone.weights: {self.weights} is not a mobilenet_v3_large of torchvision"
        load_all(self, features, wrong, stem="features.0.0.weight")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> c4 (B, 672, H / 16, W / 16) and c5 (B, 480 or 960, H / 32, W / 32)."""
        split = self.features[SPLIT].block
        c4 = split[0](self.features[:SPLIT](images))
        return {"c4": c4, "c5": self.features[SPLIT + 1 :](split[1:](c4))}
