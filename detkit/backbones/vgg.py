"""VGG (1409.1556) as SSD uses it: convolutions all the way (1512.02325, section 2.1 and 3)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Interval, doc
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.backbones.adapt import layers_of
from detkit.backbones.base import Backbone, FreezeAt
from detkit.backbones.pretrained import load_all, read_weights, warn_of_frozen_random
from detkit.layers.convs import init_convs, with_norm
from detkit.layers.norms import NormName
from detkit.registry import BACKBONES, Channels, Positive, WeightsStr
from detkit.structures import FeatureShape

CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each of the five groups; pooling halves the map after each."""
WIDTHS = (64, 128, 256, 512, 512)
FC = 1024
DILATION = 6


@BACKBONES.register()
class VGG(Backbone):
    """VGG with the levels c3, the end of the fourth group (conv4_3), and c4, the former fc7.

    The fully connected layers are a 3x3 convolution of dilation 6 and a 1x1 convolution of 1024 channels,
    and the fifth pooling is 3x3 with stride 1, so c4 has stride 16. Every pooling rounds the size up (for
    300 px that is torchvision's and the paper's 38 x 38 and 19 x 19).

    Source: 1409.1556; as SSD uses it: 1512.02325, section 3.

    Args:
        depth: number of layers.
        width: channels over those of the paper.
        norm: normalisation after every convolution; the paper has none, but training from random weights works far
            better with one.
        l2_norm: start value of a trainable factor per channel of c3, which is first scaled to length 1 at every cell
            (1506.04579); null leaves c3 unchanged.
        freeze_at: number of groups, of five, that are not trained.
        in_channels: image channels; weights for three are averaged to any other number.
        weights: file or web address of a torchvision VGG state dict, or a name of torchvision weights
            (`IMAGENET1K_FEATURES`); loaded when training starts from scratch. fc6 and fc7 are subsampled from the
            classifier's layers if the weights have them (section 3).
    """

    def __init__(
        self,
        *,
        depth: Literal[11, 13, 16, 19] = 16,
        width: Annotated[float, Interval(ge=1 / min(WIDTHS), le=16)] = 1.0,
        norm: NormName | None = None,
        l2_norm: Annotated[Positive | None, doc("greater than 0; null leaves c3 as it is")] = 20.0,
        freeze_at: FreezeAt = 0,
        in_channels: Channels = 3,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        self.depth, self.norm, self.freeze_at, self.weights = depth, norm, freeze_at, weights
        widths = [int(w * width) for w in WIDTHS]
        top = int(FC * width)
        layers: list[nn.Module] = []
        self.pools: list[int] = []
        source = in_channels
        for count, channels in zip(CONVS[depth], widths, strict=True):
            for _ in range(count):
                layers += _conv(source, channels, norm)
                source = channels
            self.pools.append(len(layers))
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers[-1] = nn.MaxPool2d(3, stride=1, padding=1)
        self.features = nn.Sequential(*layers)
        init_convs(self.features, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        self.top = nn.Sequential(*_conv(source, top, norm, dilation=DILATION), *_conv(top, top, norm, kernel=1))
        init_convs(self.top, nn.init.xavier_uniform_)
        self.scale = None if l2_norm is None else nn.Parameter(torch.full((widths[3],), float(l2_norm)))
        self.out_shapes = {"c3": FeatureShape(widths[3], 8), "c4": FeatureShape(top, 16)}
        self.freeze([self.features[: self.pools[freeze_at - 1]]] if freeze_at else [])

    def layer_names(self) -> list[list[str]]:
        layers = layers_of(self)
        if self.scale is not None:  # acts on the output of the fourth group
            layers[0].remove("scale")
            fourth = sum(CONVS[self.depth][:4]) - 1
            layers[fourth].append("scale")
        return layers

    def load_pretrained(self) -> None:
        if self.weights is None:
            warn_of_frozen_random("VGG", self.norm, self.freeze_at)
            return
        model = f"vgg{self.depth}" if self.norm is None else f"vgg{self.depth}_bn"
        state = read_weights(self.weights, model)
        weights = {key: value for key, value in state.items() if key.startswith("features.")}
        if self.norm is None:
            weights.update(subsampled_classifier(state))
        wrong = f"backbone.weights: {self.weights} is not a {model} of torchvision"
        load_all(self, weights, wrong, stem="features.0.weight", required="features.")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> c3 (B, 512, H / 8, W / 8) and c4 (B, 1024, H / 16, W / 16) at width 1."""
        fourth = self.pools[3]
        x = self.features[:fourth](images)
        c3 = x if self.scale is None else F.normalize(x) * self.scale.view(1, -1, 1, 1)
        return {"c3": c3, "c4": self.top(self.features[fourth:](x))}


def subsampled_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """fc6 and fc7 (4096 units) of a VGG state dict -> the two convolutions of 1024 channels.

    Keeps every fourth unit and, of fc6's 7 x 7 cells, every third, which the dilation moves apart again.
    Empty if the file has no classifier, or one of NaN as torchvision's IMAGENET1K_FEATURES.
    """
    names = ("classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias")
    if not all(name in state and bool(state[name].isfinite().all()) for name in names):
        return {}
    fc6, bias6, fc7, bias7 = (state[name] for name in names)
    return {
        "top.0.weight": fc6.view(len(fc6), -1, 7, 7)[::4, :, ::3, ::3].clone(),
        "top.0.bias": bias6[::4].clone(),
        "top.2.weight": fc7[::4, ::4, None, None].clone(),
        "top.2.bias": bias7[::4].clone(),
    }


def _conv(
    in_channels: int, out_channels: int, norm: NormName | None, *, kernel: int = 3, dilation: int = 1
) -> list[nn.Module]:
    """A convolution that keeps the map's size, its norm and a ReLU, numbered as torchvision does."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation)
    return with_norm(conv, norm, nn.ReLU(inplace=True))
