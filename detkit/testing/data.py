"""Contracts of data sets and transforms."""

from __future__ import annotations

import pickle
from itertools import count
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detkit.data.datasets.records import ANY_CLASS
from detkit.data.transforms.base import Draw, Labelled, apply_transforms, label_image
from detkit.structures import Targets
from detkit.testing.contract import Contract, Subject, TestedPart, expect, must_not_raise, seeded
from detkit.testing.memory import expect_no_memory
from detkit.testing.modules import COPY_CHECK

Pixels: TypeAlias = NDArray[np.uint8]
SAMPLES = 20
ORDERED = 24
"""Images that a transform sees in two orders."""
SLACK = 2.0
"""Pixels that a box may be off its object: edges are blurred where an image is resized."""
BOXES = torch.tensor([[10.0, 10.0, 60.0, 50.0], [70.0, 20.0, 120.0, 90.0], [5.0, 60.0, 40.0, 95.0]])

check_dataset = Contract("datasets", "dataset")
check_transform = Contract("transforms", "transform")


def _some(s: Subject) -> range:
    return range(min(SAMPLES, len(s.part)))


@check_dataset.check("boxes outside the image train the detector on nothing and make its loss jump.")
def boxes_lie_inside_the_image(s: Subject) -> None:
    for i in range(len(s.part)):
        height, width = s.part.records.sizes[i].tolist()
        b = np.asarray(s.part.records.annotation(i).boxes).reshape(-1, 4)
        expect(np.isfinite(b).all(), f"image {i} has a box that is not finite")
        expect((b[:, 2:] > b[:, :2]).all(), f"image {i} has a box without width or height")
        limits = np.array([width, height]) if height > 0 else np.inf
        inside = (b[:, :2] >= 0).all() and (b[:, 2:] <= limits + 1e-3).all()
        expect(inside, f"image {i} ({width}x{height}) has a box outside: {b.tolist()}")


@check_dataset.check("a label without a class crashes the loss on the GPU without a message.")
def labels_are_in_range(s: Subject) -> None:
    classes = len(s.part.classes)
    for i in range(len(s.part)):
        a = s.part.records.annotation(i)
        # An ignore region of every class has no class label.
        labels = np.asarray(a.labels)[~(np.asarray(a.is_ignore) & (np.asarray(a.labels) == ANY_CLASS))]
        ok = ((labels >= 0) & (labels < classes)).all()
        expect(ok, f"image {i} has labels {sorted(set(labels.tolist()))} of {classes} classes (want 0..{classes - 1})")


@check_dataset.check("results are matched to the ground truth by image id.")
def image_ids_are_unique(s: Subject) -> None:
    ids = s.part.records.image_ids.tolist()
    expect(len(ids) == len(s.part), f"{len(ids)} ids for {len(s.part)} images")
    expect(len(set(ids)) == len(ids), f"{len(ids) - len(set(ids))} images share an id with another")


@check_dataset.check("resume and comparison need the same image for the same index.")
def same_record_twice(s: Subject) -> None:
    for i in _some(s):
        same = np.array_equal(np.asarray(s.part.load_image(i)), np.asarray(s.part.load_image(i)))
        expect(same, f"image {i} differs when it is read again")


@check_dataset.check("boxes are in pixels of the upright RGB image.")
def images_are_rgb_of_the_stated_size(s: Subject) -> None:
    for i in _some(s):
        image = s.part.load_image(i)
        expect(image.mode == "RGB", f"image {i} has mode {image.mode}, not RGB")
        height, width = s.part.records.sizes[i].tolist()
        expect(height <= 0 or (image.height, image.width) == (height, width),
               f"image {i} is {image.width}x{image.height}, its record says {width}x{height}")  # fmt: skip


@check_dataset.check("workers read images in another order after a resume, and each reads a part of them only.")
def order_of_reading_does_not_matter(s: Subject) -> None:
    def read(part: TestedPart, i: int) -> list[Tensor]:
        annotation = part.records.annotation(i)
        values = (part.load_image(i), annotation.boxes, annotation.labels, annotation.is_ignore, part.records.sizes[i])
        return [torch.tensor(np.asarray(v)) for v in values]

    content = s.part.content_hash()
    expect_no_memory(s.build, read, _some(s), "image or annotation")
    for i in _some(s):
        read(s.part, i)
    expect(
        s.part.content_hash() == content, "reading changes the content hash: --resume would refuse the run's own data"
    )


@check_dataset.check("worker processes get a pickled copy.")
def a_pickled_copy_is_the_same(s: Subject) -> None:
    if "<locals>" in type(s.part).__qualname__:
        return
    with must_not_raise("pickling it"):
        other = pickle.loads(pickle.dumps(s.part))
    expect(other.content_hash() == s.part.content_hash(), "the copy has another content hash")
    same = np.array_equal(np.asarray(other.load_image(0)), np.asarray(s.part.load_image(0)))
    expect(same, "the copy gives another first image")


def _transformed(
    part: TestedPart, seed: int, boxes: Tensor, pixels: Pixels | None = None, draw: Draw | None = None
) -> tuple[Tensor, Targets]:
    """One transform alone, all generators begun at `seed`; an image of noise unless `pixels` are given."""
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    labels = torch.arange(len(boxes)) % 3
    ignore = torch.zeros(len(boxes), dtype=torch.bool)
    with seeded(seed):
        return apply_transforms([part], Image.fromarray(pixels), boxes, labels, ignore, draw=draw)


@check_transform.check(
    "an image's augmentation would depend on the images before it, which a resumed run has not seen."
)
def order_of_images_does_not_matter(s: Subject) -> None:
    def run(part: TestedPart, k: int) -> tuple[Tensor, ...]:
        # Three of a size, one after the other, as a transform may keep an image for the next of its size.
        pixels = np.random.default_rng(k).integers(0, 256, (96 + 8 * (k // 3 % 3), 128, 3), dtype=np.uint8)
        image, targets = _transformed(part, k, BOXES[: 1 + k % 3], pixels)
        return image, targets.boxes, targets.labels

    expect_no_memory(s.build, run, range(ORDERED), "with its own seed, transformed image")


@check_transform.check("an augmentation is a function of (seed, epoch, image), or runs can't be repeated.")
def same_seed_same_result(s: Subject) -> None:
    for seed in range(8):
        (a, ta), (b, tb) = (_transformed(s.part, seed, BOXES) for _ in range(2))
        same = a.shape == b.shape and torch.equal(a, b) and torch.equal(ta.boxes, tb.boxes)
        expect(same, f"seed {seed} gives two results: it draws from a private generator")


def _picture(k: int | None = None) -> Pixels:
    """Dark, with a bright object where box k is."""
    pixels = np.full((96, 128, 3), 30, dtype=np.uint8)
    if k is not None:
        x1, y1, x2, y2 = BOXES[k].int().tolist()
        pixels[y1:y2, x1:x2] = 200
    return pixels


def _object(blank: Tensor, image: Tensor) -> Tensor | None:
    """(4,) box around the pixels in which two images differ most, None if they differ alike everywhere.

    A change of contrast moves the background too, but less.
    """
    gap = (image.float() - blank.float()).abs().amax(dim=0)
    low, high = gap.min(), gap.max()
    if high - low < 8:
        return None
    y, x = (gap > (low + high) / 2).nonzero(as_tuple=True)
    return torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1)).float()


def _expect_box(blank: Tensor, image: Tensor, boxes: Tensor, label: int) -> list[bool]:
    """Holds the boxes of a label against where its object is drawn; -> whether a box is no larger than it.

    An object may be cut by the image's edge and hidden in part, as by random erasing; a box may not miss it.
    """
    expect(len(boxes) <= 1, f"{len(boxes)} boxes have label {label}, which one had")
    seen = _object(blank, image)
    if seen is None:
        return []
    at = [round(v) for v in seen.tolist()]
    limits = seen.new_tensor([image.shape[2], image.shape[1]])
    if not len(boxes):
        inside = (seen[:2] > 0).all() and (seen[2:] < limits).all() and (seen[2:] - seen[:2] > 4).all()
        expect(not inside, f"the object of label {label} is seen at {at}, but its box is gone (outside or inside out)")
        return []
    beyond = torch.cat((boxes[0, :2] - seen[:2], seen[2:] - boxes[0, 2:]))
    where = [round(v, 1) for v in boxes[0].tolist()]
    expect(beyond.max() <= SLACK, f"the object of label {label} is seen at {at}, its box is {where}")
    return [bool(beyond.min() >= -SLACK)]


@check_transform.check("a box outside the image, or under another label, trains the detector on nonsense.")
def boxes_stay_valid(s: Subject) -> None:
    fits: list[bool] = []
    for seed in range(8):
        blank, targets = _transformed(s.part, seed, BOXES, _picture())
        expect(blank.dtype == torch.uint8 and blank.shape[0] == 3, f"image is {blank.dtype} {tuple(blank.shape)}")
        expect(set(targets.labels.tolist()) <= {0, 1, 2}, f"labels {targets.labels.tolist()} of 0, 1, 2")
        for k in range(len(BOXES)):
            image, targets = _transformed(s.part, seed, BOXES, _picture(k))
            if image.shape == blank.shape:
                fits += _expect_box(blank, image, targets.boxes[targets.labels == k], k)
    expect(2 * sum(fits) >= len(fits), f"{len(fits) - sum(fits)} of {len(fits)} boxes are larger than their object")


@check_transform.check("an object of an image that is mixed in, without its box, is trained on as background.")
def mixed_images_bring_their_boxes(s: Subject) -> None:
    def other(k: int | None) -> Labelled:
        boxes, labels = (BOXES[:0], torch.zeros(0)) if k is None else (BOXES[k : k + 1], torch.full((1,), k))
        return label_image(Image.fromarray(_picture(k)), boxes, labels.long(), labels < 0)

    def drawn(k: int | None) -> Draw:
        calls = count()  # the first image that is drawn has the object
        return lambda: other(k if next(calls) == 0 else None)

    for seed in range(8 if s.part.mixes else 0):
        for k in range(len(BOXES)):
            (blank, _), (image, targets) = (
                _transformed(s.part, seed, BOXES[:0], _picture(), drawn(object_)) for object_ in (None, k)
            )
            if image.shape == blank.shape:
                expect(set(targets.labels.tolist()) <= {k}, f"labels {targets.labels.tolist()}, the object's is {k}")
                _expect_box(blank, image, targets.boxes, k)


@check_transform.check("images without objects are common.")
def takes_images_without_boxes(s: Subject) -> None:
    for seed in range(4):
        with must_not_raise("an image without boxes"):
            _, targets = _transformed(s.part, seed, torch.zeros(0, 4))
        expect(len(targets.boxes) == 0, f"{len(targets.boxes)} boxes where there were none")


check_transform.include(COPY_CHECK)
