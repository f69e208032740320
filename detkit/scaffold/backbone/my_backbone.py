"""A backbone: from images to feature maps of several strides."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.backbones.base import Backbone
from detkit.layers.norms import NormName, norm_layer
from detkit.registry import BACKBONES, Channels, NonNegativeInt
from detkit.structures import FeatureShape


@BACKBONES.register()
class MyBackbone(Backbone):
    """3x3 convolutions, twice as wide after every halving, with the levels c3 and c4 (strides 8 and 16).

    Args:
        width: channels of the first convolution.
        blocks: convolutions after each that halves the map.
        norm: normalisation layers.
    """

    # The arguments are the keys of the config: after the *, each with a type and, if it can have one, a default.
    # Types say the bounds; a value outside them is an error that names the config's file and line.
    def __init__(self, *, width: Channels = 16, blocks: NonNegativeInt = 1, norm: NormName = "bn") -> None:
        super().__init__()

        # Change from here: your own layers.
        def layer(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
            return nn.Sequential(convolution, norm_layer(norm)(out_channels), nn.ReLU(inplace=True))

        self.stages = nn.ModuleList()
        channels = 3
        for i in range(4):  # strides 2, 4, 8, 16
            wider = width * 2**i
            self.stages.append(
                nn.Sequential(layer(channels, wider, 2), *(layer(wider, wider, 1) for _ in range(blocks)))
            )
            channels = wider

        # The neck is built for these levels, finest first; detkit compares them with the maps of an image.
        self.out_shapes = {"c3": FeatureShape(width * 4, 8), "c4": FeatureShape(width * 8, 16)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float -> c3 (B, 4 width, H / 8, W / 8) and c4 (B, 8 width, H / 16, W / 16), rounded up."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return {"c3": maps[2], "c4": maps[3]}  # the names of out_shapes, in its order
