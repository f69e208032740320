"""The contract of a transform, and what runs a list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from PIL.Image import DecompressionBombError, Image
from PIL.Image import new as new_image
from torch import Tensor

from detkit import boxes as box_ops
from detkit.structures import Targets
from detkit.utils.console import plural

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes

IGNORE_LABEL = -1
"""Label of an ignore region while it travels through the transforms among the boxes."""
SMALLEST_SIDE = 1.0
"""Pixels; a box that the transforms leave thinner is dropped, as by torchvision's SanitizeBoundingBoxes."""


Labelled: TypeAlias = "tuple[Image, BoundingBoxes, Tensor]"
"""A PIL RGB image, its boxes (N, 4) and their labels (N,), -1 for an ignore region."""
Draw = Callable[[], Labelled]
"""Another image, drawn at random from torch's global generator."""


class Transform:
    """Changes an image and its boxes alike.

    All randomness must come from torch's, numpy's or Python's global generator, which the loader seeds for every
    sample.

    moves_boxes: False for one that only changes colours, which `detkit anchors` can leave out. mixes: True for one that
    takes other images of the data set into an image, by `mix`; it is for training only.
    """

    moves_boxes: bool = True
    mixes: bool = False

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Image, BoundingBoxes, Tensor]:
        """Transforms a PIL RGB image, its boxes (N, 4) and their labels (N,) (-1: ignore region).

        The number of boxes must stay. Make a box that is gone degenerate; it is dropped at the end.
        """
        raise NotImplementedError

    def mix(self, image: Image, boxes: BoundingBoxes, labels: Tensor, draw: Draw) -> Labelled:
        """What is called of a transform that `mixes`, in place of `__call__`.

        draw: returns another image, drawn at random, with its boxes and labels, after the transforms of `front`. The
        boxes of the image itself come first in the result, as many as they were.
        """
        raise NotImplementedError

    def front(self, transforms: Sequence[Transform]) -> Sequence[Transform]:
        """Which of the transforms in front of it an image that it draws goes through."""
        return transforms

    def fixed_size(self, height: int, width: int) -> tuple[int, int] | None:
        """The (height, width) to which it resizes every image of a (height, width), if that is all that it does.

        None for a transform that does anything else or draws random numbers.
        """
        return None

    def scaled(self, factor: float) -> Transform:
        """The same for images that are to come out `factor` times as large; itself if it resizes nothing."""
        return self


class V2Transform(Transform):
    """A transform of torchvision.transforms.v2, by its name there and its arguments."""

    def __init__(self, name: str, *args: object, **options: object) -> None:
        self.name, self.args, self.options = name, args, options

    @cached_property
    def inner(self) -> Any:
        """torchvision's transform, made when first used, so that checking a config does not import torchvision."""
        from torchvision.transforms import v2

        return getattr(v2, self.name)(*self.args, **self.options)

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Image, BoundingBoxes, Tensor]:
        image, boxes, labels = self.inner(image, boxes, labels)
        return image, boxes, labels


Watch = Callable[[str, Tensor, Tensor], None]
"""Called after every transform with its name, the boxes inside the image (N, 4), and their labels (N,)."""


def apply_transforms(
    transforms: Sequence[Transform],
    image: Image,
    boxes: Tensor,
    labels: Tensor,
    is_ignore: Tensor,
    watch: Watch | None = None,
    draw: Draw | None = None,
) -> tuple[Tensor, Targets]:
    """Runs the transforms; returns the uint8 image (3, H, W) and targets inside it.

    boxes: (N, 4) xyxy pixels of `image` (PIL); labels (N,); is_ignore (N,). draw: other images for the transforms that
    mix; without it they get black ones without objects. Raises ValueError if the transforms lose count of the boxes or
    put out coordinates that are not finite.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    given = label_image(image, boxes, labels, is_ignore)
    image, wrapped, labels = run_transforms(transforms, given, draw or partial(blank_image, image), watch)
    tensor = pil_to_tensor(image)
    names = ", ".join(type(t).__name__ for t in transforms)
    if len(wrapped) != len(labels):
        counts = f"{plural(len(wrapped), 'box', 'boxes')} but {plural(len(labels), 'label')}"
        raise ValueError(f"{counts} after the transforms {names}")
    if not torch.isfinite(wrapped.as_subclass(Tensor)).all():
        raise ValueError(f"a box is not finite after the transforms {names}: {wrapped.tolist()}")
    plain = clip_boxes(wrapped, *tensor.shape[-2:])
    usable = is_usable(plain)
    objects, ignored = usable & (labels != IGNORE_LABEL), usable & (labels == IGNORE_LABEL)
    return tensor, Targets(plain[objects], labels[objects], plain[ignored])


def run_transforms(
    transforms: Sequence[Transform], given: Labelled, draw: Draw, watch: Watch | None = None
) -> Labelled:
    """Runs the transforms one after another; what one of them draws goes through those in front of it first."""
    for place, transform in enumerate(transforms):
        megapixels = given[0].width * given[0].height / 1e6
        try:
            if transform.mixes:
                given = transform.mix(*given, partial(drawn, transform.front(transforms[:place]), draw))
            else:
                given = transform(*given)
        except DecompressionBombError:  # Pillow has its own limit for a crop
            text = f"the crop out of an image of {megapixels:.0f} megapixels is too large; resize before it"
            raise ValueError(f"{type(transform).__name__}: {text}") from None
        if watch is not None:
            image, boxes, labels = given
            watch(type(transform).__name__, clip_boxes(boxes, image.height, image.width), labels)
    return given


def drawn(front: Sequence[Transform], draw: Draw) -> Labelled:
    """Another image after the transforms in front of the one that asks for it."""
    return run_transforms(front, draw(), draw)


def label_image(image: Image, boxes: Tensor, labels: Tensor, is_ignore: Tensor) -> Labelled:
    """An image with boxes (N, 4), labels (N,) and is_ignore (N,), as transforms take it."""
    return image, wrap_boxes(boxes, image), labels.masked_fill(is_ignore, IGNORE_LABEL)


def wrap_boxes(boxes: Tensor, image: Image) -> BoundingBoxes:
    """Boxes (N, 4) as torchvision's, of an image."""
    from torchvision import tv_tensors

    return tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format="XYXY", canvas_size=(image.height, image.width))


def blank_image(like: Image) -> Labelled:
    """A black image of the size of another, without objects."""
    none = torch.zeros(0, dtype=torch.int64)
    return label_image(new_image("RGB", like.size), torch.zeros(0, 4), none, none.bool())


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clips boxes (N, 4) to an image of that size, as plain float32."""
    plain = boxes.as_subclass(Tensor).float()
    return plain.clamp(min=0).minimum(torch.tensor([width, height, width, height]))


def is_usable(boxes: Tensor) -> Tensor:
    """Which boxes (N, 4) are at least `SMALLEST_SIDE` wide and high (N,)."""
    return (box_ops.sides(boxes) >= SMALLEST_SIDE).all(dim=1)


def visible(boxes: Tensor) -> Tensor:
    """Areas (N,) of boxes (N, 4), 0 where a side is not positive."""
    return box_ops.sides(boxes).clamp(min=0).prod(dim=1)


def ignore_rests(labels: Tensor, areas: Tensor, whole: Tensor, min_visible: float) -> Tensor:
    """The labels (N,), those of objects of which less than a part is left made those of ignore regions.

    areas, whole: (N,) square pixels that are left, and that there were. A rest is hard to name, but is no background.
    """
    return labels.masked_fill(areas < min_visible * whole, IGNORE_LABEL)


@dataclass(frozen=True)
class LostObject:
    """An object that transforms remove: its row, the transform, its width and height after the last one."""

    row: int
    by: str
    width: float
    height: float


def trace_lost_objects(
    transforms: Sequence[Transform], image: Image, boxes: Tensor, is_ignore: Tensor
) -> list[LostObject]:
    """Objects (not ignore regions) that `apply_transforms` leaves out, each with the transform that removes it.

    Transforms get rows in the place of labels, so that a box is known even after others are removed. What they mix in
    is black and has no objects, so an object that another image would hide is not lost.
    """
    rows = torch.arange(len(boxes))
    first = clip_boxes(boxes, image.height, image.width), rows.masked_fill(is_ignore, IGNORE_LABEL)
    stages = [("the annotation", *first)]
    _, targets = apply_transforms(transforms, image, boxes, rows, is_ignore, lambda *stage: stages.append(stage))
    if len(targets.labels) == int((~is_ignore).sum()):
        return []
    objects = set(rows[~is_ignore].tolist())
    alive, removed_by = objects, {}
    for name, stage_boxes, stage_rows in stages:
        usable = {int(row) for row in stage_rows[is_usable(stage_boxes)]} & objects
        removed_by.update(dict.fromkeys(alive - usable, name))
        alive = usable
    last_boxes, last_rows = stages[-1][1].double(), stages[-1][2]
    sides = dict(zip(last_rows.tolist(), box_ops.sides(last_boxes).clamp(min=0).tolist(), strict=True))
    return [LostObject(row, removed_by[row], *sides.get(row, (0.0, 0.0))) for row in sorted(objects - alive)]


def transform_image(transforms: Sequence[Transform], image: Image) -> Tensor:
    """Runs the transforms on an image without boxes; returns uint8 (3, H, W)."""
    no_labels = torch.zeros(0, dtype=torch.int64)
    return apply_transforms(transforms, image, torch.zeros(0, 4), no_labels, no_labels.bool())[0]
