"""Feature pyramid network (1612.03144) with RetinaNet's extra levels (1708.02002, footnote 2)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.layers.norms import NormName, norm_layer
from detkit.necks.base import ExtraLevels, Neck, extra_strides, pyramid_level
from detkit.registry import NECKS, Channels
from detkit.structures import FeatureShape


@NECKS.register()
class FPN(Neck):
    """Top-down pyramid over all backbone levels, with stride-2 convolutions for extra levels on top.

    Args:
        channels: channels of every level.
        extra_levels: number of extra levels; each is computed from the level before, after a ReLU.
        extra_from: input of the first extra level, the last backbone level (`c5`, as in the RetinaNet paper and
            Detectron2) or the last pyramid level (`p5`, as in torchvision's v1 model).
        norm: normalisation after every convolution; None: none, and the convolutions have biases.
    """

    def __init__(
        self,
        *,
        in_shapes: dict[str, FeatureShape],
        channels: Channels = 256,
        extra_levels: ExtraLevels = 2,
        extra_from: Literal["c5", "p5"] = "c5",
        norm: NormName | None = None,
    ) -> None:
        super().__init__()
        self.extra_from = extra_from
        names = list(in_shapes)
        last = in_shapes[names[-1]]

        def conv(in_channels: int, kernel: int, stride: int = 1) -> nn.Module:
            layer = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=norm is None)
            return layer if norm is None else nn.Sequential(layer, norm_layer(norm)(channels))

        self.lateral = nn.ModuleDict({n: conv(shape.channels, 1) for n, shape in in_shapes.items()})
        self.output = nn.ModuleDict({n: conv(channels, 3) for n in names})
        first = last.channels if extra_from == "c5" else channels
        self.extra = nn.ModuleList(conv(first if i == 0 else channels, 3, 2) for i in range(extra_levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        level = [n.lstrip("c") for n in names]
        self.out_shapes = {
            f"p{i}": FeatureShape(channels, in_shapes[n].stride) for i, n in zip(level, names, strict=True)
        }
        self.out_shapes |= dict(pyramid_level(channels, s) for s in extra_strides(last.stride, extra_levels))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone levels -> p levels, finest first."""
        names = list(self.lateral)
        top: Tensor | None = None
        pyramid: list[Tensor] = []
        for name in reversed(names):
            lateral = self.lateral[name](features[name])
            # The coarse map is scaled to the size of the finer one, which is not always twice its own.
            top = lateral if top is None else lateral + F.interpolate(top, size=lateral.shape[-2:], mode="nearest")
            pyramid.insert(0, self.output[name](top))
        x = features[names[-1]] if self.extra_from == "c5" else pyramid[-1]
        for i, layer in enumerate(self.extra):
            x = layer(x if i == 0 else F.relu(x))
            pyramid.append(x)
        return dict(zip(self.out_shapes, pyramid, strict=True))
