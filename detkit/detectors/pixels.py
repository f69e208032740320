"""Normalises uint8 RGB images for the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Interval, MinLen
from torch import Tensor

from detkit.registry import enforce_bounds


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """Normalisation of pixel values, (x - mean) / std.

    Args:
        mean: mean per channel, on the 0..255 scale, in the network's channel order.
        std: standard deviation per channel, likewise.
        order: channel order of the network.
        padding: value of the padding, once pixels are normalised; YOLOX has 114.
    """

    mean: Annotated[tuple[Annotated[float, Interval(ge=-1e6, le=1e6)], ...], MinLen(1)] = (123.675, 116.28, 103.53)
    std: tuple[Annotated[float, Interval(gt=0, le=1e6)], ...] = (58.395, 57.12, 57.375)
    order: Literal["rgb", "bgr"] = "rgb"
    padding: Annotated[float, Interval(ge=-1e6, le=1e6)] = 0.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean: {len(self.mean)} values, but std has {len(self.std)}; both must have one per channel"
            )
        if self.order == "bgr" and len(self.mean) != 3:
            raise ValueError(f"order: bgr needs 3 channels, but mean has {len(self.mean)} values")


def normalize(images: Tensor, sizes: Tensor | None, options: PixelOptions) -> Tensor:
    """(B, channels, H, W) RGB, 0..255 of any dtype -> float32, normalised; padding is `options.padding` afterwards.

    sizes: (B, 2) height and width of each image inside its padding, on the host; None: no padding.
    """
    if images.shape[1] != len(options.mean):
        raise ValueError(
            f"images have {images.shape[1]} channels, pixels.mean has {len(options.mean)} values: give pixels.mean and "
            f"pixels.std one value per channel, and use a backbone for that number (data sets give 3, RGB)"
        )
    x = images.flip(1) if options.order == "bgr" else images
    mean = images.new_tensor(options.mean, dtype=torch.float32).view(1, -1, 1, 1)
    std = images.new_tensor(options.std, dtype=mean.dtype).view(1, -1, 1, 1)
    x = (x - mean).div_(std)
    if sizes is not None:
        for image, (height, width) in zip(x, sizes.tolist(), strict=True):
            image[:, height:] = options.padding
            image[:, :, width:] = options.padding
    return x
