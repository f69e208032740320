"""How well anchors fit a data set's boxes: the best IoU that any anchor has with each object."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.anchors.base import AnchorGenerator

if TYPE_CHECKING:
    from detkit.data.datasets.base import DetectionDataset
    from detkit.data.loader import LoaderOptions
    from detkit.data.transforms.base import Transform
    from detkit.detectors.dense import DenseDetector

CHUNK = 2_000_000
"""Entries of the anchor-by-object matrix that are worked on at a time."""
NO_LEVEL = -1
WARN_BELOW = 0.95
SAMPLE_IMAGES = 200
SAMPLE_PAIRS = 40_000_000
"""Of anchors and objects at the start of a training: a second or two."""
log = logging.getLogger("detkit")


@dataclass(frozen=True)
class Sample:
    """Objects of one image as the network sees them.

    size: (height, width) after padding. boxes: (G, 4) xyxy pixels of it. area: (G,) square pixels on disk,
    as annotated.
    """

    size: tuple[int, int]
    boxes: Tensor
    area: Tensor


@dataclass(frozen=True)
class Reach:
    """Of N objects: iou (N,) with the best anchor, the level (N,) it is on, boxes (N, 4), area (N,) on disk."""

    iou: Tensor
    level: Tensor
    boxes: Tensor
    area: Tensor
    images: int

    def share(self, positive: float) -> float:
        """Of the objects, those whose best anchor has at least this IoU; 1 if there are no objects."""
        return float((self.iou >= positive).double().mean()) if len(self.iou) else 1.0


def read_samples(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    options: LoaderOptions,
    *,
    seed: int,
    limit: int | None = None,
    read_images: bool = False,
) -> Iterator[Sample]:
    """Boxes of the training's first epoch, in its order, after every transform that moves boxes.

    Only annotations are read: a blank image of the annotated size takes the picture's place. Where an
    annotation states no size, the image is left out, or read if `read_images`.
    """
    from PIL import Image

    from detkit.data.seeding import permutation, seeded
    from detkit.data.transforms.base import apply_transforms

    moving = [t for t in transforms if t.moves_boxes]
    found, records = 0, dataset.records
    for index in permutation(seed, 0, len(dataset)).tolist():
        if limit is not None and found >= limit:
            return
        height, width = records.sizes[index].tolist()
        if height < 1 and not read_images:
            continue
        found += 1
        image = Image.new("RGB", (width, height)) if height > 0 else dataset.load_image(index)
        a = records.annotation(index)
        rows = torch.arange(len(a.boxes))  # in the place of labels, to know which boxes are left
        with seeded(seed, 0, int(records.image_ids[index])):
            tensor, targets = apply_transforms(moving, image, torch.tensor(a.boxes), rows, torch.tensor(a.is_ignore))
        yield Sample(padded(tensor.shape[-2:], options), targets.boxes, torch.tensor(a.area)[targets.labels])


def padded(size: Sequence[int], options: LoaderOptions) -> tuple[int, int]:
    """(height, width) of an image alone in its batch."""
    least = options.pad_to or (1, 1)
    height, width = (
        -(-max(side, low) // options.size_divisor) * options.size_divisor for side, low in zip(size, least, strict=True)
    )
    return height, width


def level_shapes(size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(H, W) of each level's map for an image of `size`."""
    return [(-(-size[0] // s), -(-size[1] // s)) for s in strides]


def measure(generator: AnchorGenerator, strides: Sequence[int], samples: Iterable[Sample]) -> Reach:
    """The best anchor of every object."""
    groups: dict[tuple[int, int], list[Sample]] = {}
    images = 0
    for sample in samples:
        images += 1
        groups.setdefault(sample.size, []).append(sample)
    parts = []
    for size, group in groups.items():
        boxes = torch.cat([s.boxes for s in group])
        anchors = generator(level_shapes(size, strides), size, torch.device("cpu"))
        parts.append((*best_anchors(boxes, anchors), boxes, torch.cat([s.area for s in group])))
    if not parts:
        return Reach(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0), 0)
    iou, level, boxes, area = (torch.cat(column) for column in zip(*parts, strict=True))
    return Reach(iou, level, boxes, area, images)


def with_lost(reach: Reach, boxes: Tensor, area: Tensor) -> Reach:
    """The same with objects that never reach the network, boxes (N, 4) on disk: no anchor has them, on no level."""
    return Reach(
        torch.cat((reach.iou, torch.zeros(len(boxes)))),
        torch.cat((reach.level, torch.full((len(boxes),), NO_LEVEL))),
        torch.cat((reach.boxes, boxes)),
        torch.cat((reach.area, area)),
        reach.images,
    )


def best_anchors(boxes: Tensor, anchors: Sequence[Tensor], chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4), anchors per level (A_l, 4) -> highest IoU (N,), level of that anchor (N,), finest of equals.

    Works on at most `chunk` pairs at a time; the result does not depend on it.
    """
    best, level = torch.zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64)
    for start in range(0, len(boxes), 256):
        some = boxes[start : start + 256]
        for i, all_of_level in enumerate(anchors):
            for piece in torch.split(all_of_level, max(1, chunk // len(some))):
                if not len(piece):
                    continue
                here = box_ops.pairwise_iou(some, piece).amax(dim=1)
                better = here > best[start : start + 256]
                best[start : start + 256][better] = here[better]
                level[start : start + 256][better] = i
    return best, level


def warn_of_misfits(
    detector: DenseDetector,
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    options: LoaderOptions,
    *,
    seed: int,
    config: str,
) -> None:
    """At the start of a training: a warning if anchors miss more objects than `WARN_BELOW` admits.

    Looks at the annotations of a sample of images, and at nothing where the assigner has no IoU threshold
    or the annotations don't state image sizes.
    """
    positive = detector.assigner.positive_iou
    if positive is None:
        return
    strides = [shape.stride for shape in detector.neck.out_shapes.values()]
    samples, pairs = [], 0
    for sample in read_samples(dataset, transforms, options, seed=seed, limit=SAMPLE_IMAGES):
        shapes = level_shapes(sample.size, strides)
        anchors = sum(h * w * n for (h, w), n in zip(shapes, detector.anchors.per_cell, strict=True))
        samples.append(sample)
        pairs += anchors * len(sample.boxes)
        if pairs > SAMPLE_PAIRS:
            break
    reach = measure(detector.anchors, strides, samples)
    share = reach.share(positive)
    if share < WARN_BELOW:
        log.warning(
            "only %.0f %% of %d objects (in %d training images) have an anchor of IoU >= %g, the assigner's "
            "threshold. `detkit anchors check %s` says which sizes and shapes are missed, `detkit anchors fit %s` "
            "gives anchors that fit",
            100 * share, len(reach.iou), reach.images, positive, shlex.quote(config), shlex.quote(config),
        )  # fmt: skip
