"""Transforms that move boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Interval, MinLen
from PIL.Image import Image
from torch import Tensor

from detkit.data.transforms.base import (
    IGNORE_LABEL,
    Transform,
    V2Transform,
    clip_boxes,
    ignore_rests,
    visible,
)
from detkit.registry import TRANSFORMS, Fraction, PositiveInt, Side
from detkit.registry.bounds import Ascending

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes


ScaleFactor = Annotated[float, Interval(gt=0, le=100)]
CropScale = Annotated[float, Interval(ge=1e-3, le=1)]
AspectRatio = Annotated[float, Interval(ge=1e-3, le=1e3)]
Trials = Annotated[int, Interval(ge=1, le=10_000)]
Colour = Annotated[int, Interval(ge=0, le=255)]
CanvasScale = Annotated[float, Interval(ge=1, le=100)]


@TRANSFORMS.register()
class RandomHorizontalFlip(V2Transform):
    """Swaps left and right.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Fraction = 0.5) -> None:
        super().__init__("RandomHorizontalFlip", p)


@TRANSFORMS.register()
class RandomVerticalFlip(V2Transform):
    """Swaps top and bottom.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Fraction = 0.5) -> None:
        super().__init__("RandomVerticalFlip", p)


@TRANSFORMS.register()
class Resize(V2Transform):
    """Resizes to a fixed size, whatever the aspect ratio was.

    Args:
        height: pixels.
        width: pixels.
    """

    def __init__(self, *, height: Side, width: Side) -> None:
        super().__init__("Resize", (height, width))
        self.size = (height, width)

    def fixed_size(self, height: int, width: int) -> tuple[int, int] | None:
        return self.size

    def scaled(self, factor: float) -> Resize:
        height, width = (max(1, round(side * factor)) for side in self.size)
        return Resize(height=height, width=width)


@TRANSFORMS.register()
class ResizeShortestEdge(Transform):
    """Resizes the shorter side to `short` pixels, or less so that the longer stays within max_size.

    Sides are rounded to the nearest pixel as Detectron2 does (torchvision cuts off); pixels are interpolated by Pillow,
    with its low-pass filter when shrinking.

    Args:
        short: one size, in pixels, or a list of which each image gets one at random.
        max_size: largest longer side, pixels.
    """

    def __init__(self, *, short: Side | Annotated[list[Side], MinLen(1)], max_size: PositiveInt = 1333) -> None:
        self.sizes = [short] if isinstance(short, int) else list(short)
        self.max_size = max_size

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Image, BoundingBoxes, Tensor]:
        from torchvision.transforms.v2 import functional

        # A single size draws no random number.
        short = self.sizes[0 if len(self.sizes) == 1 else int(torch.randint(len(self.sizes), ()))]
        size = list(shortest_edge_size(image.height, image.width, short, self.max_size))
        if size == [image.height, image.width]:
            return image, boxes, labels
        return functional.resize(image, size), functional.resize(boxes, size), labels

    def fixed_size(self, height: int, width: int) -> tuple[int, int] | None:
        return shortest_edge_size(height, width, self.sizes[0], self.max_size) if len(self.sizes) == 1 else None

    def scaled(self, factor: float) -> ResizeShortestEdge:
        short, longest = [max(1, round(side * factor)) for side in self.sizes], max(1, round(self.max_size * factor))
        return ResizeShortestEdge(short=short, max_size=longest)


def shortest_edge_size(height: int, width: int, short: int, max_size: int) -> tuple[int, int]:
    """(height, width) with a shorter side of `short` and a longer of at most `max_size`.

    Scales in two steps: one step rounds some sizes to another pixel than Detectron2 does.
    """
    least, most = float(short), short / min(height, width) * max(height, width)
    if most > max_size:
        scale = max_size / most
        least, most = least * scale, most * scale
    sides = max(1, int(least + 0.5)), max(1, int(most + 0.5))
    return sides if height < width else (sides[1], sides[0])


@TRANSFORMS.register()
class ScaleJitter(V2Transform):
    """Large scale jitter (2012.07177): fits the image into height x width, times a random factor.

    Args:
        height: pixels.
        width: pixels.
        scale_range: range of the factor.
    """

    def __init__(
        self,
        *,
        height: Side,
        width: Side,
        scale_range: Annotated[tuple[ScaleFactor, ScaleFactor], Ascending()] = (0.1, 2.0),
    ) -> None:
        super().__init__("ScaleJitter", (height, width), scale_range)


@TRANSFORMS.register()
class RandomCrop(V2Transform):
    """Crops a random window; smaller images lie at a random place of it.

    After ScaleJitter this is the large scale jitter of 2012.07177.

    Args:
        height: pixels.
        width: pixels.
        fill: colour around smaller images, RGB 0..255.
        min_visible: part of its area that an object keeps, or it becomes an ignore region.
    """

    def __init__(
        self,
        *,
        height: Side,
        width: Side,
        fill: tuple[Colour, Colour, Colour] = (0, 0, 0),
        min_visible: Fraction = 0.0,
    ) -> None:
        super().__init__("RandomCrop", (height, width), pad_if_needed=True, fill=tuple(fill))
        self.min_visible = min_visible

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Image, BoundingBoxes, Tensor]:
        whole = visible(clip_boxes(boxes, image.height, image.width))
        image, boxes, labels = super().__call__(image, boxes, labels)
        left = visible(clip_boxes(boxes, image.height, image.width))
        return image, boxes, ignore_rests(labels, left, whole, self.min_visible)


@TRANSFORMS.register()
class RandomIoUCrop(V2Transform):
    """SSD's crop (1512.02325, section 2.2): a window that has a random minimum IoU with some object.

    Objects whose centre is outside the window are dropped. Ignore regions neither steer the window nor
    are dropped: what is left of one in the window still hides objects that nobody annotated.

    Args:
        min_scale: least side of the window, as a fraction of the image's.
        max_scale: largest side of the window, as a fraction of the image's.
        min_aspect_ratio: least width / height of the window.
        max_aspect_ratio: largest width / height of the window.
        trials: windows drawn for one minimum IoU, before another is drawn.
    """

    def __init__(
        self,
        *,
        min_scale: CropScale = 0.3,
        max_scale: CropScale = 1.0,
        min_aspect_ratio: AspectRatio = 0.5,
        max_aspect_ratio: AspectRatio = 2.0,
        trials: Trials = 40,
    ) -> None:
        for name, least, most in (
            ("scale", min_scale, max_scale), ("aspect_ratio", min_aspect_ratio, max_aspect_ratio),
        ):  # fmt: skip
            if least > most:
                raise ValueError(f"min_{name}: {least} must not exceed max_{name}: {most}")
        super().__init__("RandomIoUCrop", min_scale, max_scale, min_aspect_ratio, max_aspect_ratio, trials=trials)

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Image, BoundingBoxes, Tensor]:
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
        sides = [window[side] for side in ("top", "left", "height", "width")]
        image, boxes = functional.crop(image, *sides), functional.crop(boxes, *sides)
        outside = torch.zeros_like(objects)
        outside[objects] = ~window["is_within_crop_area"]
        boxes[outside] = 0
        return image, boxes, labels


@TRANSFORMS.register()
class RandomZoomOut(V2Transform):
    """SSD's expansion (1512.02325, section 3.6): the image at a random position on a larger canvas.

    Args:
        fill: colour of the canvas, RGB 0..255; the default is the mean colour of ImageNet.
        side_range: range of canvas side / image side.
        p: probability.
    """

    def __init__(
        self,
        *,
        fill: tuple[Colour, Colour, Colour] = (123, 117, 104),
        side_range: Annotated[tuple[CanvasScale, CanvasScale], Ascending()] = (1.0, 4.0),
        p: Fraction = 0.5,
    ) -> None:
        super().__init__("RandomZoomOut", fill=list(fill), side_range=side_range, p=p)
