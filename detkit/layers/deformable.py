"""Deformable convolution (1703.06211), by torchvision."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class DeformableConv2d(nn.Conv2d):
    """A convolution that reads at offsets from its grid, which another convolution predicts (1703.06211, section 2.1).

    It computes in the type of its weights. Offsets are (y, x) in cells for every place of the kernel, row by row.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        places = 2 * kernel_size**2
        like = {key: options[key] for key in ("stride", "padding", "dilation") if key in options}
        self.offset = nn.Conv2d(in_channels, places, kernel_size, **like)

    def forward(self, x: Tensor) -> Tensor:
        return self.at(x, self.offset(x))

    def at(self, x: Tensor, offsets: Tensor) -> Tensor:
        """(B, in, H, W) and offsets (B, 2 k^2, H, W) -> (B, out, H, W)."""
        return deform(x, offsets, self)


def deform(x: Tensor, offsets: Tensor, conv: nn.Conv2d) -> Tensor:
    """Applies the weights of a convolution at offsets (B, 2 k^2, H, W) from its grid; outside the map it reads 0."""
    from torchvision.ops import deform_conv2d

    kind = conv.weight.dtype
    y: Tensor = deform_conv2d(
        x.to(kind), offsets.to(kind), conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation
    )
    return y


def start_undeformed(module: nn.Module) -> None:
    """Sets the offsets of all deformable convolutions to zero."""
    for part in module.modules():
        offset = getattr(part, "offset", None)
        if isinstance(offset, nn.Conv2d):
            nn.init.zeros_(offset.weight)
            if offset.bias is not None:
                nn.init.zeros_(offset.bias)
