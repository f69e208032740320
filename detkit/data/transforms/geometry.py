"""Transforms that move boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detkit.data.transforms.base import IGNORE_LABEL, Transform, V2Transform
from detkit.registry import TRANSFORMS
from detkit.registry.arguments import LARGEST_SIDE, within


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"p: {p} is not a probability")
    return p


@TRANSFORMS.register()
class RandomHorizontalFlip(V2Transform):
    """Left for right with probability p."""

    def __init__(self, *, p: float = 0.5) -> None:
        from torchvision.transforms import v2

        self.inner = v2.RandomHorizontalFlip(_probability(p))


@TRANSFORMS.register()
class RandomVerticalFlip(V2Transform):
    """Top for bottom with probability p."""

    def __init__(self, *, p: float = 0.5) -> None:
        from torchvision.transforms import v2

        self.inner = v2.RandomVerticalFlip(_probability(p))


@TRANSFORMS.register()
class Resize(V2Transform):
    """To a fixed height and width in pixels, whatever the shape was."""

    def __init__(self, *, height: int, width: int) -> None:
        from torchvision.transforms import v2

        if min(height, width) < 1:
            raise ValueError(f"height={height}, width={width}: both must be positive")
        within("height", height, 1, LARGEST_SIDE)
        within("width", width, 1, LARGEST_SIDE)
        self.inner = v2.Resize((height, width))


@TRANSFORMS.register()
class ResizeShortestEdge(Transform):
    """The shorter side to `short` pixels, or less so that the longer stays within max_size.

    short: one size, or a list of which each image gets one at random. Sides are rounded to the nearest
    pixel as Detectron2 does (torchvision cuts off); pixels are interpolated by Pillow, with its low-pass
    when shrinking.
    """

    def __init__(self, *, short: int | list[int], max_size: int = 1333) -> None:
        self.sizes = [short] if isinstance(short, int) else list(short)
        if not self.sizes or min(self.sizes) < 1 or max_size < 1:
            raise ValueError(f"short={short}, max_size={max_size}: both must be positive")
        within("short", self.sizes, 1, LARGEST_SIDE)
        self.max_size = max_size

    def __call__(self, image: Any, boxes: Any, labels: Tensor) -> tuple[Any, Any, Tensor]:
        """See `Transform`."""
        from torchvision.transforms.v2 import functional

        one = len(self.sizes) == 1
        short = self.sizes[0 if one else int(torch.randint(len(self.sizes), ()))]
        size = list(shortest_edge_size(image.height, image.width, short, self.max_size))
        if size == [image.height, image.width]:
            return image, boxes, labels
        return functional.resize(image, size), functional.resize(boxes, size), labels


def shortest_edge_size(height: int, width: int, short: int, max_size: int) -> tuple[int, int]:
    """(height, width) after the shorter side became `short`, the longer at most `max_size`.

    Scaled in two steps, for one step rounds some sizes to another pixel than Detectron2 does.
    """
    least, most = float(short), short / min(height, width) * max(height, width)
    if most > max_size:
        scale = max_size / most
        least, most = least * scale, most * scale
    sides = max(1, int(least + 0.5)), max(1, int(most + 0.5))
    return sides if height < width else (sides[1], sides[0])


@TRANSFORMS.register()
class ScaleJitter(V2Transform):
    """Large scale jitter (2012.07177): fits the image into height x width, times a random factor."""

    def __init__(self, *, height: int, width: int, scale_range: tuple[float, float] = (0.1, 2.0)) -> None:
        from torchvision.transforms import v2

        if min(height, width) < 1 or not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"height={height}, width={width}, scale_range={scale_range}: want positive, in order")
        within("height", height, 1, LARGEST_SIDE)
        within("width", width, 1, LARGEST_SIDE)
        within("scale_range", scale_range, 0, 100)
        self.inner = v2.ScaleJitter((height, width), scale_range)


@TRANSFORMS.register()
class RandomCrop(V2Transform):
    """A random window of height x width pixels; smaller images are padded with black."""

    def __init__(self, *, height: int, width: int) -> None:
        from torchvision.transforms import v2

        within("height", height, 1, LARGEST_SIDE)
        within("width", width, 1, LARGEST_SIDE)
        self.inner = v2.RandomCrop((height, width), pad_if_needed=True)


@TRANSFORMS.register()
class RandomIoUCrop(V2Transform):
    """SSD's crop (1512.02325, section 2.2): a window that has a random least IoU with some object.

    Objects whose centre is outside the window are dropped. Ignore regions neither steer the window nor
    are dropped: what is left of one in the window still hides objects that nobody annotated.
    """

    def __init__(
        self,
        *,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        trials: int = 40,
    ) -> None:
        from torchvision.transforms import v2

        within("min_scale", min_scale, 1e-3, max_scale)
        within("max_scale", max_scale, 0, 1)
        within("min_aspect_ratio", min_aspect_ratio, 1e-3, max_aspect_ratio)
        within("max_aspect_ratio", max_aspect_ratio, 1e-3, 1e3)
        within("trials", trials, 1, 10_000)
        self.inner = v2.RandomIoUCrop(min_scale, max_scale, min_aspect_ratio, max_aspect_ratio, trials=trials)

    def __call__(self, image: Any, boxes: Any, labels: Tensor) -> tuple[Any, Any, Tensor]:
        """See `Transform`; without objects there is nothing to crop around."""
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional

        objects = labels != IGNORE_LABEL
        if not objects.any():
            return image, boxes, labels
        try:
            window = self.inner.make_params([image, tv_tensors.wrap(boxes[objects], like=boxes)])
        except ZeroDivisionError:  # a window thinner than a pixel
            window = None
        if not window:
            return image, boxes, labels
        place = [window[side] for side in ("top", "left", "height", "width")]
        image, boxes = functional.crop(image, *place), functional.crop(boxes, *place)
        gone = torch.zeros_like(objects)
        gone[objects] = ~window["is_within_crop_area"]
        boxes[gone] = 0
        return image, boxes, labels


@TRANSFORMS.register()
class RandomZoomOut(V2Transform):
    """SSD's expansion (1512.02325, section 3.6): the image somewhere on a larger canvas of the mean colour.

    fill: canvas colour, 0..255 RGB. side_range: canvas side over image side.
    """

    def __init__(
        self,
        *,
        fill: tuple[int, int, int] = (123, 117, 104),
        side_range: tuple[float, float] = (1.0, 4.0),
        p: float = 0.5,
    ) -> None:
        from torchvision.transforms import v2

        if not 1 <= side_range[0] <= side_range[1]:
            raise ValueError(f"side_range: {side_range} must be at least 1 and in order")
        within("side_range", side_range, 1, 100)
        within("fill", fill, 0, 255)
        self.inner = v2.RandomZoomOut(fill=list(fill), side_range=side_range, p=_probability(p))
