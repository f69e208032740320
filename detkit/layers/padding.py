"""Padding as in TensorFlow: what can't be divided evenly goes to the right and the bottom."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pads (B, C, H, W) with zeros so that a window gives ceil(side / stride) cells; the odd one right and below."""
    down, right = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))


class SamePadConv2d(nn.Conv2d):
    """A convolution of a square kernel with `pad_same` instead of equal padding on both sides."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> SamePadConv2d:
        """The same convolution, weights included, with the other padding."""
        same = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        same.weight, same.bias = conv.weight, conv.bias
        return same

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))
