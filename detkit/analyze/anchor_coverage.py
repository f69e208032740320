"""How well anchors cover a data set's objects: the highest IoU that any anchor has with each object."""

from __future__ import annotations

import logging
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from detkit import boxes as box_ops
from detkit.anchors.base import AnchorGenerator
from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import LoaderOptions
from detkit.data.seeding import permutation, seeded
from detkit.data.transforms.base import Transform, apply_transforms
from detkit.detectors.dense import DenseDetector

CHUNK = 2_000_000
"""Entries of the anchor-by-object matrix that are held at a time."""
NO_LEVEL = -1
WARN_BELOW = 0.95
SAMPLE_IMAGES = 200
SAMPLE_PAIRS = 40_000_000
"""Pairs of anchor and object that are compared at the start of training: a second or two."""
log = logging.getLogger("detkit")


@dataclass(frozen=True)
class Sample:
    """Objects of one image as the network sees them.

    size: (height, width) after padding. boxes: (G, 4) xyxy pixels of it. area: (G,) square pixels on disk,
    as annotated. labels: (G,) their classes, if they are known.
    """

    size: tuple[int, int]
    boxes: Tensor
    area: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Coverage:
    """How well anchors cover N objects.

    iou: (N,) with the best anchor. level: (N,) that this anchor is on, NO_LEVEL if there is none. boxes: (N, 4).
    area: (N,) square pixels on disk. images: number of images the objects are of.
    """

    iou: Tensor
    level: Tensor
    boxes: Tensor
    area: Tensor
    images: int

    def recall(self, positive: float) -> float:
        """Fraction of the objects whose best anchor has at least this IoU; 1 if there are no objects."""
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
    """Yields the objects of the first training epoch, in its order, after every transform that moves boxes.

    Only annotations are read: a blank image of the annotated size replaces the photo. An image whose
    annotation states no size is skipped, or read if `read_images`.
    """
    moving = [t for t in transforms if t.moves_boxes]
    images, records = 0, dataset.records
    for index in permutation(seed, 0, len(dataset)).tolist():
        if limit is not None and images >= limit:
            return
        height, width = records.sizes[index].tolist()
        if height < 1 and not read_images:
            continue
        images += 1
        image = Image.new("RGB", (width, height)) if height > 0 else dataset.load_image(index)
        a = records.annotation(index)
        rows = torch.arange(len(a.boxes))  # as labels, to know which boxes are left
        with seeded(seed, 0, int(records.image_ids[index])):
            tensor, targets = apply_transforms(moving, image, torch.tensor(a.boxes), rows, torch.tensor(a.is_ignore))
        size, rows = padded(tensor.shape[-2:], options), targets.labels
        yield Sample(size, targets.boxes, torch.tensor(a.area)[rows], torch.tensor(a.labels)[rows])


def padded(size: Sequence[int], options: LoaderOptions) -> tuple[int, int]:
    """(height, width) of an image alone in its batch."""
    least = options.pad_to or (1, 1)
    divisor = options.size_divisor
    height, width = (-(-max(side, low) // divisor) * divisor for side, low in zip(size, least, strict=True))
    return height, width


def level_shapes(size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(H, W) of each level's map for an image of `size`."""
    return [(-(-size[0] // s), -(-size[1] // s)) for s in strides]


def measure(generator: AnchorGenerator, strides: Sequence[int], samples: Iterable[Sample]) -> Coverage:
    """Finds the best anchor of every object, in the order of `by_size`."""
    groups, parts = by_size(samples), []
    for size, group in groups.items():
        boxes = torch.cat([s.boxes for s in group])
        anchors = generator(level_shapes(size, strides), size, torch.device("cpu"))
        parts.append((*best_anchors(boxes, anchors), boxes, torch.cat([s.area for s in group])))
    if not parts:
        return Coverage(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0), 0)
    iou, level, boxes, area = (torch.cat(column) for column in zip(*parts, strict=True))
    return Coverage(iou, level, boxes, area, sum(map(len, groups.values())))


def by_size(samples: Iterable[Sample]) -> dict[tuple[int, int], list[Sample]]:
    """The samples of each size; both in the order in which they come."""
    groups: dict[tuple[int, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.size].append(sample)
    return groups


def with_lost(coverage: Coverage, boxes: Tensor, area: Tensor) -> Coverage:
    """Adds objects that never reach the network, boxes (N, 4) on disk: IoU 0, on no level."""
    reached = (coverage.iou, coverage.level, coverage.boxes, coverage.area)
    lost = (torch.zeros(len(boxes)), torch.full((len(boxes),), NO_LEVEL), boxes, area)
    iou, level, boxes, area = (torch.cat(pair) for pair in zip(reached, lost, strict=True))
    return Coverage(iou, level, boxes, area, coverage.images)


def best_anchors(boxes: Tensor, anchors: Sequence[Tensor], chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4), anchors per level (A_l, 4) -> highest IoU (N,), level of that anchor (N,), finest of equals.

    Works on at most `chunk` pairs at a time; the result does not depend on it.
    """
    best, level = torch.zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64)
    for start in range(0, len(boxes), 256):
        some = boxes[start : start + 256]
        for i, level_anchors in enumerate(anchors):
            for piece in torch.split(level_anchors, max(1, chunk // len(some))):
                if not len(piece):
                    continue
                iou = box_ops.pairwise_iou(some, piece).amax(dim=1)
                better = iou > best[start : start + 256]
                best[start : start + 256][better] = iou[better]
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
    """Warns at the start of training if the anchors' recall is below `WARN_BELOW`.

    Looks at the annotations of a sample of images; does nothing if the assigner has no IoU threshold
    or the annotations state no image sizes.
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
    coverage = measure(detector.anchors, strides, samples)
    recall = coverage.recall(positive)
    if recall < WARN_BELOW:
        log.warning(
            f"only {100 * recall:.0f} % of {len(coverage.iou)} objects (in {coverage.images} training images) have an "
            f"anchor of IoU >= {positive:g}, the assigner's threshold. `detkit anchors check {shlex.quote(config)}` "
            f"prints which sizes and shapes are missed, `detkit anchors fit {shlex.quote(config)}` fits anchors "
            "to the data"
        )
