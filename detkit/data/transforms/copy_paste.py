"""Objects of another image, pasted as rectangles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from detkit import boxes as box_ops
from detkit.data.transforms.base import IGNORE_LABEL, Draw, Labelled, clip_boxes, ignore_rests, is_usable, visible
from detkit.data.transforms.mixing import MixingTransform, join
from detkit.registry import TRANSFORMS, Fraction

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes

SWALLOWED = 0.5
"""Part of a pasted object in an ignore region, beyond which no anchor would learn it."""


@TRANSFORMS.register()
class CopyPaste(MixingTransform):
    """Pastes objects of another image into this one, each at its place (2012.07177, section 3; with boxes, not masks).

    The other image goes through the transforms in front of this one, in the paper a flip, ScaleJitter and RandomCrop.
    An object is pasted as the rectangle of its box. What else that rectangle shows of the other image gets its label,
    too. Objects of this image are cut to what is left of them. Where less than `min_visible` of an object is left, or
    comes along, that becomes an ignore region, unless the region would hide a pasted object. See Mosaic for why no
    cache of the last images is used.

    Args:
        share: probability of each object of the other image to be pasted.
        min_visible: part of its area that an object keeps, or it becomes an ignore region.
        p: probability.
    """

    def __init__(self, *, share: Fraction = 0.5, min_visible: Fraction = 0.3, p: Fraction = 1.0) -> None:
        self.share, self.min_visible, self.p = share, min_visible, p

    def mix(self, image: Image, boxes: BoundingBoxes, labels: Tensor, draw: Draw) -> Labelled:
        if torch.rand(()) >= self.p:
            return image, boxes, labels
        other, their_boxes, their_labels = draw()
        whole = clip_boxes(their_boxes, other.height, other.width)
        shown = clip_boxes(whole, image.height, image.width)
        chosen = torch.rand(len(shown)) < self.share
        chosen &= (their_labels != IGNORE_LABEL) & is_usable(shown)
        chosen &= visible(shown) >= self.min_visible * visible(whole)
        if not chosen.any():
            return image, boxes, labels
        pasted, canvas = np.zeros((image.height, image.width), bool), image.copy()
        for left, top, right, bottom in map(pixels, shown[chosen]):
            pasted[top:bottom, left:right] = True
            canvas.paste(other.crop((left, top, right, bottom)), (left, top))
        own = clip_boxes(boxes, image.height, image.width)
        new = shown[chosen]
        return join(
            canvas,
            [
                self.rests(own, labels, visible(own), pasted, new),
                (new, their_labels[chosen]),
                self.rests(shown[~chosen], their_labels[~chosen], visible(whole[~chosen]), ~pasted, new),
            ],
        )

    def rests(
        self, boxes: Tensor, labels: Tensor, whole: Tensor, hidden: NDArray[np.bool_], pasted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is left of boxes (N, 4) with labels (N,) where `hidden` (H, W) is False.

        whole: (N,) areas of the complete objects. pasted: (P, 4) boxes that no new ignore region may hide.
        """
        left = [uncovered(box, hidden) for box in boxes]
        if not left:
            return boxes, labels
        rest, areas = torch.stack([box for box, _ in left]), boxes.new_tensor([area for _, area in left])
        after = ignore_rests(labels, areas, whole, self.min_visible)
        inside = box_ops.pairwise_intersection(rest, pasted) > SWALLOWED * box_ops.area(pasted)
        hides = (after == IGNORE_LABEL) & (rest != boxes).any(dim=1) & inside.any(dim=1)
        return rest.masked_fill(hides[:, None], 0), after


def pixels(box: Tensor) -> tuple[int, int, int, int]:
    """The whole pixels that a box (4,) touches: left, top, right, bottom."""
    (left, top), (right, bottom) = box[:2].floor().int().tolist(), box[2:].ceil().int().tolist()
    return left, top, right, bottom


def uncovered(box: Tensor, hidden: NDArray[np.bool_]) -> tuple[Tensor, float]:
    """The smallest box (4,) around what is not hidden of a box, and its square pixels; zeros where that is nothing."""
    left, top, right, bottom = pixels(box)
    free = ~hidden[top:bottom, left:right]
    if free.all() and free.size:
        return box, float(visible(box[None]))
    rows, columns = (np.flatnonzero(free.any(axis=axis)) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return torch.zeros_like(box), 0.0
    first = box.new_tensor([left + columns[0], top + rows[0]])
    last = box.new_tensor([left + columns[-1] + 1, top + rows[-1] + 1])
    return torch.cat((box[:2].maximum(first), box[2:].minimum(last))), float(free.sum())
