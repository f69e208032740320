"""The contract of a transform, and what runs a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detkit.structures import Targets

IGNORE_LABEL = -1
"""Label of an ignore region while it travels through the transforms among the boxes."""
SMALLEST_SIDE = 1.0
"""Pixels; a box that the transforms leave thinner is dropped, as by torchvision's SanitizeBoundingBoxes."""


class Transform:
    """Changes an image and its boxes alike. All randomness must come from torch's, numpy's or Python's global
    generator, which the loader seeds for every sample.

    moves_boxes: False for one that only changes colours, which `detkit anchors` can leave out.
    """

    moves_boxes: bool = True

    def __call__(self, image: Any, boxes: Any, labels: Tensor) -> tuple[Any, Any, Tensor]:
        """PIL RGB image, `tv_tensors.BoundingBoxes` (N, 4) and labels (N,) (-1: ignore region), in and out.

        The number of boxes must stay; make a box that is gone degenerate, it is dropped at the end.
        """
        raise NotImplementedError


class V2Transform(Transform):
    """A transform of torchvision.transforms.v2; a subclass sets `inner`."""

    inner: Any

    def __call__(self, image: Any, boxes: Any, labels: Tensor) -> tuple[Any, Any, Tensor]:
        """See `Transform`."""
        image, boxes, labels = self.inner(image, boxes, labels)
        return image, boxes, labels


def apply(
    transforms: Sequence[Transform], image: Any, boxes: Tensor, labels: Tensor, is_ignore: Tensor
) -> tuple[Tensor, Targets]:
    """Runs the transforms -> uint8 image (3, H, W) and targets inside it.

    boxes: (N, 4) xyxy pixels of `image` (PIL); labels (N,); is_ignore (N,). Raises ValueError if the
    transforms lose count of the boxes or put out coordinates that are not finite.
    """
    from torchvision import tv_tensors
    from torchvision.transforms.v2.functional import pil_to_tensor

    wrapped = tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format="XYXY", canvas_size=(image.height, image.width))
    labels = labels.masked_fill(is_ignore, IGNORE_LABEL)
    for transform in transforms:
        image, wrapped, labels = transform(image, wrapped, labels)
    tensor = pil_to_tensor(image)
    height, width = tensor.shape[-2:]
    plain = wrapped.as_subclass(Tensor).float()
    names = ", ".join(type(t).__name__ for t in transforms)
    if len(plain) != len(labels):
        raise ValueError(f"{len(plain)} boxes but {len(labels)} labels after the transforms {names}")
    if not torch.isfinite(plain).all():
        raise ValueError(f"a box is not finite after the transforms {names}: {plain.tolist()}")
    plain = plain.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    usable = ((plain[:, 2:] - plain[:, :2]) >= SMALLEST_SIDE).all(dim=1)
    objects, ignored = usable & (labels != IGNORE_LABEL), usable & (labels == IGNORE_LABEL)
    return tensor, Targets(plain[objects], labels[objects], plain[ignored])


def apply_to_image(transforms: Sequence[Transform], image: Any) -> Tensor:
    """The same for an image (PIL) without boxes -> uint8 (3, H, W)."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return apply(transforms, image, torch.zeros(0, 4), nothing, nothing.bool())[0]
