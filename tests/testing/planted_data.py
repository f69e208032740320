"""Faults against the contracts of data sets and transforms."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import torch
from PIL import Image

from detkit.data.transforms.base import wrap_boxes
from detkit.structures import ClassMap
from tests.testing.planted import fault

CALLS = count()


def wide_box(self: Any) -> None:
    self.records.boxes[0, 2] = 99


def same_id_twice(self: Any) -> None:
    self.records.image_ids[1] = self.records.image_ids[0]


def drift(self: Any, original: Any, index: int) -> Any:
    self.pixels[index, 0, 0] += index  # the first stays as it is
    return original(index)


def flip_with_own_dice(self: Any, original: Any, *given: Any) -> Any:
    self.inner.p = float(next(CALLS) % 2)  # every other call, whatever the seed
    return original(*given)


def flip_pixels_only(self: Any, original: Any, image: Any, boxes: Any, labels: Any) -> Any:
    return original(image, boxes, labels)[0], boxes, labels


def flip_without_swapping(self: Any, original: Any, image: Any, boxes: Any, labels: Any) -> Any:
    image, boxes, labels = original(image, boxes, labels)
    return image, boxes[:, [2, 1, 0, 3]], labels


def changed(boxes: Any = lambda b: b, labels: Any = lambda x: x) -> Any:
    """A flip that changes the boxes or the labels besides."""

    def call(self: Any, original: Any, *given: Any) -> Any:
        image, b, x = original(*given)
        return image, boxes(b), labels(x)

    return call


def mix_pixels_only(self: Any, original: Any, image: Any, boxes: Any, labels: Any, draw: Any) -> Any:
    return Image.blend(image, draw()[0], 0.5), boxes, labels


def mix_under_another_label(self: Any, original: Any, image: Any, boxes: Any, labels: Any, draw: Any) -> Any:
    other, more, their_labels = draw()
    joined = wrap_boxes(torch.cat((boxes, more)), image)
    return Image.blend(image, other, 0.5), joined, torch.cat((labels, (their_labels + 1) % 3))


FAULTS = [
    fault(
        "datasets",
        "boxes_lie_inside_the_image",
        r"image 0 \(64x64\) has a box outside: .*99",
        init=wide_box,
    ),
    fault(
        "datasets",
        "labels_are_in_range",
        r"image \d has labels .* of 1 classes \(want 0..0\)",
        init=lambda self: setattr(self, "classes", ClassMap(("one",), (1,))),
    ),
    fault("datasets", "image_ids_are_unique", "1 images share an id with another", init=same_id_twice),
    fault(
        "datasets",
        "same_record_twice",
        "image 1 differs when it is read again",
        load_image=drift,
        also=("order_of_reading_does_not_matter",),
    ),
    fault(
        "datasets",
        "images_are_rgb_of_the_stated_size",
        "image 0 has mode L, not RGB",
        load_image=lambda self, original, index: original(index).convert("L"),
    ),
    fault(
        "datasets",
        "images_are_rgb_of_the_stated_size",
        "image 0 is 64x32, its record says 64x64",
        load_image=lambda self, original, index: original(index).resize((64, 32)),
    ),
    fault(
        "datasets",
        "a_pickled_copy_is_the_same",
        "the copy gives another first image",
        __getstate__=lambda self, original: {**self.__dict__, "pixels": np.zeros_like(self.pixels)},
    ),
    fault(
        "datasets",
        "a_pickled_copy_is_the_same",
        "pickling it raises .*lambda",
        init=lambda self: setattr(self, "later", lambda: 0),
    ),
    fault(
        "transforms",
        "same_seed_same_result",
        r"seed \d gives two results: it draws from a private generator",
        __call__=flip_with_own_dice,
        also=("order_of_images_does_not_matter",),
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        r"labels \[1, 2, 3\] of 0, 1, 2",
        __call__=changed(labels=lambda x: x + 1),
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        r"the object of label 0 is seen at \[.*\], its box is",
        __call__=changed(labels=lambda x: x.flip(0)),
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        r"the object of label 0 is seen at \[68, 10, 118, 50\], its box is \[10.0, 10.0, 60.0, 50.0\]",
        __call__=flip_pixels_only,
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        "the object of label 0 is seen at .*, but its box is gone",
        __call__=flip_without_swapping,
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        r"seen at \[68, 10, 118, 50\], its box is \[68.0, 10.0, 115.0, 47.0\]",
        __call__=changed(boxes=lambda b: b - torch.tensor([0, 0, 3, 3])),
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        "24 of 24 boxes are larger than their object",
        __call__=changed(boxes=lambda b: b + torch.tensor([-3, -3, 3, 3])),
    ),
    fault(
        "transforms",
        "boxes_stay_valid",
        "the object of label 0 is seen at .*, but its box is gone",
        __call__=changed(boxes=lambda b: b + 1000),
    ),
    fault(
        "transforms",
        "mixed_images_bring_their_boxes",
        "the object of label 0 is seen at .*, but its box is gone",
        init=lambda self: setattr(self, "mixes", True),
        mix=mix_pixels_only,
    ),
    fault(
        "transforms",
        "mixed_images_bring_their_boxes",
        r"labels \[1\], the object's is 0",
        init=lambda self: setattr(self, "mixes", True),
        mix=mix_under_another_label,
    ),
    fault(
        "transforms",
        "takes_images_without_boxes",
        "an image without boxes raises IndexError",
        __call__=lambda self, original, image, boxes, labels: (boxes[0], original(image, boxes, labels))[1],
    ),
]
