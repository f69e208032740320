"""Convolutions: their norms and initialisation, and the depthwise-separable ones of SSDlite (1801.04381, 6.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from detkit.layers.norms import NormName, norm_layer

EPS, MOMENTUM = 1e-3, 0.03
"""Of batch normalisation: epsilon of MobileNetV3, momentum of torchvision's SSDlite."""
mobile_init = partial(nn.init.normal_, std=0.03)
"""Initial weights of torchvision's SSDlite."""


def init_convs(module: nn.Module, init: Callable[[Tensor], Tensor]) -> None:
    """Sets the weights of every convolution by `init`, and the biases to zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            init(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def with_norm(conv: nn.Conv2d, norm: NormName | None, *after: nn.Module) -> list[nn.Module]:
    """A convolution, its norm if there is one, and the layers `after`."""
    return [conv, *([] if norm is None else [norm_layer(norm)(conv.out_channels)]), *after]


def mobile_norm(name: NormName) -> Callable[[int], nn.Module]:
    """Like `norm_layer`, with the epsilon and momentum of MobileNetV3 and SSDlite if the norm has any."""
    return norm_layer(name, EPS, MOMENTUM)


def pointwise(in_channels: int, out_channels: int, norm: NormName | None) -> nn.Module:
    """1x1 convolution, norm, ReLU6."""
    return _conv(in_channels, out_channels, norm, kernel_size=1)


def depthwise(channels: int, stride: int, padding: int, norm: NormName | None) -> nn.Module:
    """Depthwise 3x3 convolution, norm, ReLU6."""
    return _conv(channels, channels, norm, kernel_size=3, stride=stride, padding=padding, groups=channels)


def _conv(in_channels: int, out_channels: int, norm: NormName | None, **options: int) -> nn.Module:
    from torchvision.ops import Conv2dNormActivation

    layer = None if norm is None else mobile_norm(norm)
    block: nn.Module = Conv2dNormActivation(
        in_channels, out_channels, norm_layer=layer, activation_layer=nn.ReLU6, **options
    )
    return block
