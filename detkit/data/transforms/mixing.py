"""Transforms that take other images of the data set into an image.

The other images are drawn from the generator that the loader seeds by (seed, epoch, image id), so what comes out is a
function of these three, whatever the number of loader processes and ranks, and after a resume. RTMDet's cached Mosaic
and MixUp (2212.07784) draw from the images that the same process met last, which is none of that: their result depends
on the order in which a process met its images. What they save, decoding several images for one, `data.images.cache`
saves here: it keeps decoded images, so that any of them can be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Interval
from PIL import Image as pillow
from PIL.Image import Image
from torch import Tensor

from detkit import boxes as box_ops
from detkit.data.transforms.base import (
    Draw,
    Labelled,
    Transform,
    blank_image,
    clip_boxes,
    ignore_rests,
    visible,
    wrap_boxes,
)
from detkit.data.transforms.geometry import Colour, ScaleFactor
from detkit.registry import TRANSFORMS, Fraction, Side
from detkit.registry.bounds import Ascending, OpenFraction

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes

CentreFraction = Annotated[float, Interval(ge=0, le=2)]
GREY = (114, 114, 114)


class MixingTransform(Transform):
    """A transform that takes other images in; called without any, it takes black ones without objects."""

    mixes = True

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> Labelled:
        return self.mix(image, boxes, labels, partial(blank_image, image))


@TRANSFORMS.register()
class Mosaic(MixingTransform):
    """Four images around a random point of a canvas of twice the size (YOLOX 2107.08430, section 2; 2004.10934).

    Each image is fitted into height x width and touches the point with a corner; what leaves the canvas is cut off. The
    canvas is 2 height x 2 width: follow it with ScaleJitter and RandomCrop, as RTMDet does (2212.07784), or with
    RandomCrop alone. Three more images are read for each one, so keep decoded images with `data.images.cache`. The
    images are drawn from the whole data set and not, as by RTMDet's cache, from the last ones of a loader process,
    which would make them depend on the number of processes and on resuming.

    Args:
        height: largest height of each of the four images, pixels.
        width: largest width of each of the four images, pixels.
        centre_range: range of the point, as a fraction of height and width.
        fill: colour of the canvas, RGB 0..255.
        min_visible: part of its area that an object keeps, or it becomes an ignore region.
        p: probability.
    """

    def __init__(
        self,
        *,
        height: Side,
        width: Side,
        centre_range: Annotated[tuple[CentreFraction, CentreFraction], Ascending()] = (0.5, 1.5),
        fill: tuple[Colour, Colour, Colour] = GREY,
        min_visible: Fraction = 0.1,
        p: Fraction = 1.0,
    ) -> None:
        self.height, self.width, self.centre_range = height, width, tuple(centre_range)
        self.fill, self.min_visible, self.p = tuple(fill), min_visible, p

    def mix(self, image: Image, boxes: BoundingBoxes, labels: Tensor, draw: Draw) -> Labelled:
        if torch.rand(()) >= self.p:
            return image, boxes, labels
        x, y = (round(uniform(*self.centre_range) * side) for side in (self.width, self.height))
        canvas = pillow.new("RGB", (2 * self.width, 2 * self.height), self.fill)
        placed: list[tuple[Tensor, Tensor]] = []
        for tile in torch.randperm(4).tolist():
            four = (image, boxes, labels) if not placed else draw()
            fitted = fit(four, self.height, self.width)
            left = x - (0 if tile % 2 else fitted[0].width)
            top = y - (0 if tile >= 2 else fitted[0].height)
            placed.append(place(canvas, fitted, left, top, self.min_visible))
        return join(canvas, placed)


@TRANSFORMS.register()
class MixUp(MixingTransform):
    """The mean of the image and another one, with the objects of both (1902.04103; YOLOX 2107.08430, section 2).

    The other image is fitted into this one, times a random factor, and lies at a random place of a canvas of its size.
    All objects count in full. It goes through the transforms in front of this one, as in RTMDet; with `single` without
    those that mix, as in YOLOX. See Mosaic for why no cache of the last images is used.

    Args:
        scale_range: range of the factor on the other image.
        weight: weight of this image in the mean; the other has the rest.
        single: the other image is a single one, so after a Mosaic five images are read and not eight.
        fill: colour of the canvas, RGB 0..255.
        min_visible: part of its area that an object of the other image keeps, or it becomes an ignore region.
        p: probability.
    """

    def __init__(
        self,
        *,
        scale_range: Annotated[tuple[ScaleFactor, ScaleFactor], Ascending()] = (0.5, 1.5),
        weight: OpenFraction = 0.5,
        single: bool = False,
        fill: tuple[Colour, Colour, Colour] = GREY,
        min_visible: Fraction = 0.1,
        p: Fraction = 1.0,
    ) -> None:
        self.scale_range, self.weight, self.single = tuple(scale_range), weight, single
        self.fill, self.min_visible, self.p = tuple(fill), min_visible, p

    def front(self, transforms: Sequence[Transform]) -> Sequence[Transform]:
        return [t for t in transforms if not t.mixes] if self.single else transforms

    def mix(self, image: Image, boxes: BoundingBoxes, labels: Tensor, draw: Draw) -> Labelled:
        if torch.rand(()) >= self.p:
            return image, boxes, labels
        scale = uniform(*self.scale_range)
        other = fit(draw(), scale * image.height, scale * image.width)
        canvas = pillow.new("RGB", image.size, self.fill)
        # In front of 0 where the other image is the larger one.
        left, top = (round(float(torch.rand(())) * (a - b)) for a, b in zip(image.size, other[0].size, strict=True))
        moved = place(canvas, other, left, top, self.min_visible)
        return join(pillow.blend(canvas, image, self.weight), [(boxes.as_subclass(Tensor), labels), moved])


def uniform(low: float, high: float) -> float:
    """A number between two others, from torch's global generator."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def fit(given: Labelled, height: float, width: float) -> Labelled:
    """The image, made as large as fits into height x width, with its boxes clipped to it."""
    image, boxes, labels = given
    scale = min(height / image.height, width / image.width)
    size = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    resized = image if size == (image.height, image.width) else image.resize(size[::-1], pillow.Resampling.BILINEAR)
    inside = clip_boxes(boxes, image.height, image.width)
    scaled = box_ops.rescale(inside, (image.height, image.width), size)
    return resized, wrap_boxes(scaled, resized), labels


def place(canvas: Image, given: Labelled, left: int, top: int, min_visible: float) -> tuple[Tensor, Tensor]:
    """Pastes an image into the canvas; returns its boxes there, clipped, and their labels."""
    image, boxes, labels = given
    canvas.paste(image, (left, top))
    whole = boxes.as_subclass(Tensor).float()
    moved = clip_boxes(whole + torch.tensor([left, top, left, top]), canvas.height, canvas.width)
    return moved, ignore_rests(labels, visible(moved), visible(whole), min_visible)


def join(canvas: Image, parts: Sequence[tuple[Tensor, Tensor]]) -> Labelled:
    """A canvas with the boxes and labels of all parts, in their order."""
    boxes, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return canvas, wrap_boxes(boxes, canvas), labels
