"""A neck: from the backbone's feature maps to the levels of the head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import Neck
from detkit.registry import NECKS, Channels, NonNegativeInt
from detkit.structures import FeatureShape


@NECKS.register()
class MyNeck(Neck):
    """Adds the next coarser level to every level; strided convolutions make further levels.

    Args:
        in_shapes: channels and stride of the backbone's levels.
        channels: of every output level.
        extra_levels: levels coarser than the backbone's.
        norm: normalisation layers.
    """

    # detkit hands in `in_shapes`; the others are the keys of the config. Their types say the bounds.
    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 64,
        extra_levels: NonNegativeInt = 1,
        norm: NormName = "bn",
    ) -> None:
        super().__init__()

        # Change from here: your own layers.
        def layer(in_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(convolution, norm_layer(norm)(channels))

        self.lateral = nn.ModuleList(layer(shape.channels, 1) for shape in in_shapes.values())
        self.mix = nn.ModuleList(layer(channels, 3) for _ in in_shapes)
        self.extra = nn.ModuleList(layer(channels, 3, stride=2) for _ in range(extra_levels))

        # Name -> channels and stride, finest first. Anchors and head are built for these.
        strides = [shape.stride for shape in in_shapes.values()]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(extra_levels)]
        self.out_shapes = {f"p{i}": FeatureShape(channels, stride) for i, stride in enumerate(strides)}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone levels -> the levels of `out_shapes`, in its order."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, features.values(), strict=True)]
        for i in range(len(levels) - 1, 0, -1):  # from coarse to fine, to the finer one's exact size
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=levels[i - 1].shape[-2:])
        levels = [mix(F.relu(x)) for mix, x in zip(self.mix, levels, strict=True)]
        for extra in self.extra:
            levels.append(extra(F.relu(levels[-1])))
        return dict(zip(self.out_shapes, levels, strict=True))
