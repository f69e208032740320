"""VGG (1409.1556) as SSD uses it: convolutions all the way (1512.02325, section 2.1 and 3)."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.backbones.base import Backbone
from detkit.backbones.pretrained import fit_channels, read_weights
from detkit.layers.depthwise import init_xavier
from detkit.layers.norms import NormName, norm_layer
from detkit.registry import BACKBONES, WeightsStr
from detkit.registry.arguments import MOST_CHANNELS, within
from detkit.structures import FeatureShape

CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each of the five groups, between which the map is halved."""
WIDTHS = (64, 128, 256, 512, 512)
FC = 1024
DILATION = 6


@BACKBONES.register()
class VGG(Backbone):
    """VGG of a given depth; puts out c3, the end of the fourth group (conv4_3), and c4, the former fc7.

    The fully connected layers are a 3x3 convolution of dilation 6 and a 1x1 convolution of 1024 channels,
    and the fifth pooling is 3x3 with stride 1, so c4 has stride 16. Every pooling rounds the size up (for
    300 px that is torchvision's and the paper's 38 x 38 and 19 x 19). l2_norm: c3 is scaled to length 1 at
    every cell and multiplied by a learnt factor a channel that begins at this value (1506.04579); null
    leaves it as it is. width: channels over those of the paper. norm: after every convolution; the paper
    has none, from random weights it trains far better with one. freeze_at: how many of the five groups are
    not trained. in_channels: image channels. weights: file or web address of a torchvision VGG state dict,
    or the name of torchvision weights (`IMAGENET1K_FEATURES`), loaded when training starts from scratch;
    fc6 and fc7 are thinned out of the classifier's layers where those are there (section 3).
    """

    def __init__(
        self,
        *,
        depth: Literal[11, 13, 16, 19] = 16,
        width: float = 1.0,
        norm: NormName | None = None,
        l2_norm: float | None = 20.0,
        freeze_at: int = 0,
        in_channels: int = 3,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"freeze_at: {freeze_at} is not between 0 (train all) and 5 (train only fc6 and fc7)")
        within("width", width, 0, 16)
        within("in_channels", in_channels, 0, MOST_CHANNELS)
        if min(WIDTHS) * width < 1 or in_channels < 1:
            raise ValueError(f"width={width}, in_channels={in_channels}: some layer would have no channel")
        if l2_norm is not None and l2_norm <= 0:
            raise ValueError(f"l2_norm: {l2_norm} is not positive; write null to leave c3 as it is")
        self.depth, self.norm, self.freeze_at = depth, norm, freeze_at
        self.in_channels, self.weights = in_channels, weights
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
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.top = nn.Sequential(*_conv(source, top, norm, dilation=DILATION), *_conv(top, top, norm, kernel=1))
        init_xavier(self.top)
        self.scale = None if l2_norm is None else nn.Parameter(torch.full((widths[3],), float(l2_norm)))
        self.out_shapes = {"c3": FeatureShape(widths[3], 8), "c4": FeatureShape(top, 16)}
        self._frozen().requires_grad_(False)

    def _frozen(self) -> nn.Module:
        return self.features[: self.pools[self.freeze_at - 1]] if self.freeze_at else nn.Sequential()

    def train(self, mode: bool = True) -> VGG:
        """Training mode for all but the frozen groups, whose batch statistics must stay still."""
        super().train(mode)
        self._frozen().eval()
        return self

    def load_pretrained(self) -> None:
        """Loads `weights`, if any; warns when frozen layers are left at random values."""
        if self.weights is None:
            if self.freeze_at or self.norm == "frozen_bn":
                logging.getLogger("detkit").warning(
                    "VGG: %s with random weights: nothing will adapt them. Give backbone.weights, or set "
                    "backbone.norm=bn (or null) and backbone.freeze_at=0.",
                    f"freeze_at={self.freeze_at}" if self.freeze_at else "frozen_bn",
                )
            return
        model = f"vgg{self.depth}" if self.norm is None else f"vgg{self.depth}_bn"
        state = read_weights(self.weights, model)
        own = {key: value for key, value in state.items() if key.startswith("features.")}
        if "features.0.weight" in own:
            own["features.0.weight"] = fit_channels(own["features.0.weight"], self.in_channels)
        if self.norm is None:
            own.update(thinned_classifier(state))
        expected = self.state_dict()
        counters = ".num_batches_tracked"
        missing = [k for k in expected if k.startswith("features.") and k not in own and not k.endswith(counters)]
        unknown = [k for k in own if not k.endswith(counters) and own[k].shape != getattr(expected.get(k), "shape", 0)]
        if missing or unknown:
            raise ValueError(
                f"backbone.weights: {self.weights} is not a {model} of torchvision: {len(missing)} tensors missing "
                f"{missing[:3]}, {len(unknown)} unknown or of another shape {unknown[:3]}"
            )
        self.load_state_dict({key: value for key, value in own.items() if key in expected}, strict=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> c3 (B, 512, H / 8, W / 8) and c4 (B, 1024, H / 16, W / 16) at width 1."""
        fourth = self.pools[3]
        x = self.features[:fourth](images)
        c3 = x if self.scale is None else F.normalize(x) * self.scale.view(1, -1, 1, 1)
        return {"c3": c3, "c4": self.top(self.features[fourth:](x))}


def thinned_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """fc6 and fc7 (4096 units) of a VGG state dict -> the two convolutions of 1024 channels.

    Every fourth unit is kept, and of fc6's 7 x 7 cells every third, which the dilation moves apart again.
    Nothing if the file has no classifier, or one of NaN, as torchvision's IMAGENET1K_FEATURES.
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
    return [conv, *([] if norm is None else [norm_layer(norm)(out_channels)]), nn.ReLU(inplace=True)]
