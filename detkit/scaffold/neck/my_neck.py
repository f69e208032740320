"""A neck: the backbone's feature maps in, the levels that the head looks at out."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import Neck
from detkit.registry import NECKS
from detkit.structures import FeatureShape


@NECKS.register()
class MyNeck(Neck):
    """Every level takes in the coarser one above it; `extra_levels` strided convolutions go on top.

    channels: of every level that comes out.
    """

    # `in_shapes` is what the backbone declares and is handed in; the others are the keys of the config.
    def __init__(
        self, *, in_shapes: dict[str, FeatureShape], channels: int = 64, extra_levels: int = 1, norm: NormName = "bn"
    ) -> None:
        super().__init__()
        if channels < 1 or extra_levels < 0:
            raise ValueError(f"channels: {channels} must be at least 1, and extra_levels ({extra_levels}) at least 0")

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
