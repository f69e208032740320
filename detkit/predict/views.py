"""The views of an image that a network gets: the image, its tiles, each at several scales and mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Interval, MinLen
from PIL import ImageOps
from PIL.Image import Image, Resampling
from torch import Tensor

from detkit.data.transforms.base import Transform
from detkit.registry import Fraction, Side, enforce_bounds
from detkit.structures import Detections

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes

Region = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels of the image."""


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views of an image are looked at, and how their detections become one list.

    Args:
        tile: side of the square tiles in which a large image is looked at, pixels of the image; None for no tiles.
        overlap: fraction of a tile's side that it shares with the next one.
        whole: whether the whole image is looked at beside its tiles.
        flip: whether every view is looked at mirrored as well.
        scales: sizes at which every view is looked at, as factors of the size that the network was trained for.
        merge: `nms` is the suppression of the model; `wbf` is weighted boxes fusion (1910.13302), which averages boxes
            and lowers the score of an object that only some of the views show.
        fusion_iou: IoU above which weighted boxes fusion takes two boxes for one object.
    """

    tile: Side | None = None
    overlap: Annotated[float, Interval(ge=0, le=0.9)] = 0.2
    whole: bool = True
    flip: bool = False
    scales: Annotated[Sequence[Annotated[float, Interval(ge=0.05, le=20)]], MinLen(1)] = (1.0,)
    merge: Literal["nms", "wbf"] = "nms"
    fusion_iou: Fraction = 0.55

    def __post_init__(self) -> None:
        if self.merge not in ("nms", "wbf"):
            raise ValueError(f"merge: {self.merge!r} must be nms or wbf")

    def of(self, width: int, height: int) -> list[View]:
        """The views of an image of a size in pixels."""
        flips = (False, True) if self.flip else (False,)
        regions = self.regions(width, height)
        return [View(region, scale, flip) for region in regions for scale in self.scales for flip in flips]

    def regions(self, width: int, height: int) -> list[Region]:
        """The whole image and its tiles; an image that fits into a tile has none."""
        image = (0, 0, width, height)
        if self.tile is None or max(width, height) <= self.tile:
            return [image]
        columns, rows = (tile_edges(side, self.tile, self.overlap) for side in (width, height))
        tiles = [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]
        return [image, *tiles] if self.whole else tiles


def tile_edges(side: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """(first, past the last) pixel of each tile along a side; the last tile ends with the image and overlaps more."""
    if side <= tile:
        return [(0, side)]
    step = max(1, round(tile * (1 - overlap)))
    return [(start, start + tile) for start in (*range(0, side - tile, step), side - tile)]


@dataclass(frozen=True)
class View:
    """A region of an image, at a scale, mirrored or not."""

    region: Region
    scale: float = 1.0
    flip: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the region, pixels."""
        x1, y1, x2, y2 = self.region
        return y2 - y1, x2 - x1

    def cut(self, image: Image) -> Image:
        """The view's pixels."""
        part = image if self.region == (0, 0, *image.size) else image.crop(self.region)
        return ImageOps.mirror(part) if self.flip else part

    def transforms(self, transforms: Sequence[Transform]) -> Sequence[Transform]:
        """The transforms, which resize to another size if the scale is not 1."""
        if self.scale == 1:
            return transforms
        scaled = [transform.scaled(self.scale) for transform in transforms]
        if all(new is old for new, old in zip(scaled, transforms, strict=True)):
            return [Zoom(self.scale), *transforms]
        return scaled

    def restore(self, detections: Detections) -> Detections:
        """Detections in pixels of the view -> in pixels of the image."""
        boxes = detections.boxes
        if self.flip:
            width = self.size[1]
            boxes = torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
        x, y = self.region[:2]
        return replace(detections, boxes=boxes + boxes.new_tensor([x, y, x, y]))


class Zoom(Transform):
    """Resizes an image without boxes by a factor, for a network whose transforms resize nothing.

    factor: of both sides.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Image, BoundingBoxes, Tensor]:
        width, height = (max(1, round(side * self.factor)) for side in image.size)
        return image.resize((width, height), Resampling.BILINEAR), boxes, labels
