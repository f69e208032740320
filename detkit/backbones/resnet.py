"""ResNet-18/34/50/101/152 (1512.03385) out of torchvision's modules."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from detkit.backbones.adapt import Map, choose_levels, layers_of
from detkit.backbones.base import Backbone, FreezeAt, OutFeatures
from detkit.backbones.pretrained import load_all, read_weights, warn_of_frozen_random
from detkit.layers.norms import FrozenBatchNorm2d, NormName, norm_layer
from detkit.registry import BACKBONES, Channels, WeightsStr
from detkit.structures import FeatureShape

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


@BACKBONES.register()
class ResNet(Backbone):
    """ResNet with 18, 34, 50, 101 or 152 layers (1512.03385).

    Args:
        depth: number of layers.
        norm: normalisation of every block.
        freeze_at: number of stages (stem, then the four groups of blocks) that are not trained: 0 trains all, 2 is
            usual with ImageNet weights.
        in_channels: image channels; weights for three are averaged to any other number.
        out_features: levels among c2, c3, c4 and c5 (strides 4 to 32); null: c3, c4 and c5. Later stages are left out.
        stride_in_1x1: put a bottleneck's stride in its first 1x1 convolution, as the original MSRA and Detectron2
            weights need it.
        weights: file or web address of a torchvision ResNet state dict, or a name of torchvision weights
            (`IMAGENET1K_V1`); loaded when training starts from scratch.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        norm: NormName = "frozen_bn",
        freeze_at: FreezeAt = 0,
        in_channels: Channels = 3,
        out_features: OutFeatures = None,
        stride_in_1x1: bool = False,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        from torchvision.models import resnet

        block = resnet.BasicBlock if depth < 50 else resnet.Bottleneck
        body = resnet.ResNet(block, list(LAYERS[depth]), norm_layer=norm_layer(norm))
        if in_channels != 3:
            body.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.depth, self.weights, self.freeze_at, self.norm = depth, weights, freeze_at, norm
        stem = ("conv1", "bn1", "relu", "maxpool")
        self.stem = nn.Sequential(OrderedDict((name, getattr(body, name)) for name in stem))
        levels = {n: Map(16 * stride * block.expansion, stride, False) for n, stride in STRIDES.items()}
        levels = choose_levels(f"ResNet-{depth}", levels, out_features)
        self.out_shapes = {n: FeatureShape(m.channels, m.stride) for n, m in levels.items()}
        self.last = int(max(levels)[1]) - 1
        for i in range(1, self.last + 1):
            self.add_module(f"layer{i}", getattr(body, f"layer{i}"))
        if stride_in_1x1:
            self._move_stride_to_first_convolution()
        self.freeze([self.stem, *self._stages()][:freeze_at])
        for module in self.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.overwrite = True  # nothing else reads a convolution's output

    def _move_stride_to_first_convolution(self) -> None:
        if self.depth < 50:
            raise ValueError(f"stride_in_1x1: ResNet-{self.depth} has no 1x1 convolution to hold the stride")
        for stage in self._stages()[1:]:
            first = stage[0]  # type: ignore[index]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride

    def _stages(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{i}") for i in range(1, self.last + 1)]

    def layer_names(self) -> list[list[str]]:
        return layers_of(self)

    def load_pretrained(self) -> None:
        if self.weights is None:
            warn_of_frozen_random("ResNet", self.norm, self.freeze_at)
            return
        state = read_weights(self.weights, f"resnet{self.depth}")
        renamed = {
            (key if key.startswith("layer") else f"stem.{key}"): value
            for key, value in state.items()
            if not key.startswith(("fc.", *(f"layer{i}." for i in range(self.last + 1, 5))))
        }
        wrong = f"backbone.weights: {self.weights} is not a ResNet-{self.depth} of torchvision"
        load_all(self, renamed, wrong, stem="stem.conv1.weight")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.stem(images)
        features = {}
        for name, stage in zip(STRIDES, self._stages(), strict=False):
            x = stage(x)
            if name in self.out_shapes:
                features[name] = x
        return features
