"""What the rules know of a data set: its images, and how large its objects are in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from detkit.boxes import pairwise_iou
from detkit.data.datasets.base import DetectionDataset
from detkit.data.seeding import permutation
from detkit.utils.types import Floats, Ints

LOOKED_AT = 2000
"""Images whose annotations are looked at; of more, a random sample."""
SIDES = re.compile(r"left|right|links|rechts|gauche|droite|izquierd|derech|sinistr|destr|左|右|лев|прав", re.IGNORECASE)
"""Words in the names of classes that a mirror exchanges."""
FEWEST_BOXES = 10
"""Objects of a class below which its sizes say too little."""
OVERLAP_QUANTILE = 0.98
"""Part of the objects that `Facts.overlap` holds for."""


@dataclass(frozen=True)
class Facts:
    """A data set in figures.

    images: how many it has. boxes: objects of each class, by name. height, width: medians over the images, pixels.
    aspect: median of width over height; 1 where upright and lying images are mixed. small: side of the small objects,
    as a fraction of the image's (both square roots of areas): of each class the lower quartile, of these the least.
    small_class: the class it is of. sided: classes that a mirror exchanges. overlap: the IoU that all but the most
    crowded fiftieth of the objects have at most with another object of their class.
    """

    images: int
    boxes: dict[str, int]
    height: int
    width: int
    aspect: float
    small: float
    small_class: str
    sided: tuple[str, ...]
    overlap: float = 0.0


def read_facts(dataset: DetectionDataset, seed: int = 0) -> Facts:
    """Looks at the annotations; an image's file is opened where its size is not stated.

    Raises ValueError if there are no objects.
    """
    chosen = sorted(permutation(seed, 0, len(dataset)).tolist()[:LOOKED_AT])
    sizes = np.array([image_size(dataset, i) for i in chosen], float).reshape(-1, 2)
    fractions, labels = relative_sides(dataset, chosen, sizes)
    if not len(fractions):
        raise ValueError(f"{dataset.name}: no image has an object, so there is nothing to learn")
    names = dataset.classes.names
    small, small_class = smallest_class(fractions, labels, names)
    counts = np.bincount(labels, minlength=len(names))
    height, width = np.median(sizes, axis=0)
    return Facts(
        images=len(dataset),
        boxes={name: int(count) for name, count in zip(names, counts, strict=True)},
        height=int(height),
        width=int(width),
        aspect=common_aspect(sizes),
        small=small,
        small_class=small_class,
        sided=tuple(name for name in names if SIDES.search(name)),
        overlap=float(np.quantile(overlaps(dataset, chosen), OVERLAP_QUANTILE)),
    )


def image_size(dataset: DetectionDataset, index: int) -> tuple[int, int]:
    """(height, width) as stated, else of the file."""
    height, width = dataset.records.sizes[index].tolist()
    return (height, width) if height > 0 else dataset.image_size(index)


def relative_sides(dataset: DetectionDataset, chosen: list[int], sizes: Floats) -> tuple[Floats, Ints]:
    """Side of every object as a fraction of its image's, and its label; without ignore regions."""
    fractions, labels = [np.zeros(0)], [np.zeros(0, int)]
    for index, (height, width) in zip(chosen, sizes, strict=True):
        a = dataset.records.annotation(index)
        boxes = a.boxes[~a.is_ignore]
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        fractions.append(np.sqrt(area / (height * width)))
        labels.append(a.labels[~a.is_ignore])
    return np.concatenate(fractions).astype(float), np.concatenate(labels)


def overlaps(dataset: DetectionDataset, chosen: list[int]) -> Floats:
    """Of every object the largest IoU with another object of its class in the image; without ignore regions."""
    largest = [np.zeros(0)]
    for index in chosen:
        a = dataset.records.annotation(index)
        boxes, labels = torch.from_numpy(a.boxes[~a.is_ignore]), torch.from_numpy(a.labels[~a.is_ignore])
        if len(boxes):
            same = (labels[:, None] == labels[None, :]).fill_diagonal_(False)
            largest.append((pairwise_iou(boxes, boxes) * same).amax(1).double().numpy())
    return np.concatenate(largest)


def smallest_class(fractions: Floats, labels: Ints, names: tuple[str, ...]) -> tuple[float, str]:
    """The least lower quartile of a class's sides, and its name; rare classes count only if all are rare."""
    counts = np.bincount(labels, minlength=len(names))
    least = min(FEWEST_BOXES, int(counts.max()))
    quartiles = [(float(np.quantile(fractions[labels == k], 0.25)), names[k]) for k in np.flatnonzero(counts >= least)]
    return min(quartiles)


def common_aspect(sizes: Floats) -> float:
    """Median width over height, if 19 of 20 images lie on the same side of the square; else 1."""
    aspects = sizes[:, 1] / sizes[:, 0]
    agree = max(float((aspects > 1.05).mean()), float((aspects < 1 / 1.05).mean()))
    return float(np.median(aspects)) if agree >= 0.95 else 1.0
