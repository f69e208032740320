"""Suspected label errors: where a detector and the labels contradict each other, the likeliest errors first.

The detector must not have learnt the labels that it judges by heart: one that was trained on other images, or one
that was trained for so short that it knows what most labels say and not what each says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from detkit import boxes as box_ops
from detkit.data.datasets.base import DetectionDataset
from detkit.data.doctor.findings import Corners, corners
from detkit.structures import Detections
from detkit.utils.types import Bools, Floats, Ints

SAME = 0.5
"""IoU from which a detection is at the place of a box."""
NEAR = 0.3
"""IoU with a box that no detection has found, from which a detection counts as that object, badly placed."""
IN_REGION = 0.5
"""Fraction of a detection in an ignore region from which it is not judged."""
DOUBT = 0.5
"""Factor on a box that is not found: hard objects are missed more often than labels are wrong."""
SuspectKind = Literal["missing", "swapped", "not found"]


@dataclass(frozen=True)
class Suspect:
    """A place where labels and detections contradict each other.

    kind: `missing`, a detection without a box; `swapped`, a box where another class is detected; `not found`, a box
    where nothing is detected. image: its index. box: xyxy pixels, the annotated one if there is one. row: of the box in
    `Records.annotation`, None if it is missing. label: as annotated, found: as detected. score: of the detection.
    weight: 0..1, how likely it is an error.
    """

    kind: SuspectKind
    image: int
    box: Corners
    row: int | None
    label: int | None
    found: int | None
    score: float
    weight: float


@dataclass(frozen=True)
class Compared:
    """The detections of one image against its objects.

    scores, labels (D,), boxes (D, 4): of the detections that are judged. explained (D,): an object of the class is
    there, or near by and not found otherwise. support (G,): highest score of the object's own class at its place.
    other (G,): row of the strongest unexplained detection of another class there, or -1. taken (D,): whether a
    detection is at the place of an object, of whatever class.
    """

    boxes: Floats
    labels: Ints
    scores: Floats
    explained: Bools
    taken: Bools
    support: Floats
    other: Ints


def find_label_errors(dataset: DetectionDataset, detections: Mapping[int, Detections]) -> list[Suspect]:
    """The suspects of a data set, likeliest first.

    detections: index of an image -> its detections, in pixels of the file, down to low scores.
    """
    images = {index: compare(dataset, index, found) for index, found in detections.items()}
    suspects: list[Suspect] = []
    if not images:
        return suspects
    trust = [Trust.of(list(images.values()), label) for label in range(len(dataset.classes))]
    support = supports(dataset, images)
    for index, image in images.items():
        suspects += missing(index, image, trust)
        suspects += wrong_boxes(dataset, index, image, trust, support)
    return sorted(suspects, key=lambda s: (-s.weight, -s.score, s.image))


def compare(dataset: DetectionDataset, index: int, found: Detections) -> Compared:
    """The detections of one image against its objects."""
    a = dataset.records.annotation(index)
    objects, regions = torch.tensor(a.boxes[~a.is_ignore]), torch.tensor(a.boxes[a.is_ignore])
    labels = torch.tensor(a.labels[~a.is_ignore])
    if len(regions):
        inside = box_ops.pairwise_intersection(found.boxes, regions).amax(dim=1)
        keep = inside <= IN_REGION * box_ops.area(found.boxes)
        found = Detections(found.boxes[keep], found.scores[keep], found.labels[keep])
    iou = box_ops.pairwise_iou(found.boxes, objects)
    same_class = found.labels[:, None] == labels
    at_place = iou >= SAME
    scores = found.scores[:, None].expand_as(iou)
    support = scores.where(at_place & same_class, 0.0).amax(dim=0) if len(found) else torch.zeros(len(objects))
    near = same_class & (iou >= NEAR) & (support == 0)
    explained = ((at_place & same_class) | near).any(dim=1)
    strength = scores.where(at_place & ~same_class & ~explained[:, None], 0.0)
    none = torch.full_like(labels, -1)
    other = strength.max(dim=0).indices.where(strength.amax(dim=0) > 0, none) if len(found) else none
    return Compared(
        found.boxes.double().numpy(), found.labels.numpy(), found.scores.double().numpy(), explained.numpy(),
        at_place.any(dim=1).numpy(), support.double().numpy(), other.numpy(),
    )  # fmt: skip


@dataclass(frozen=True)
class Trust:
    """How far the detections of a class are to be trusted: the fraction that labels confirm, from a score on.

    scores: descending; precision: of the detections down to each.
    """

    scores: Floats
    precision: Floats

    @classmethod
    def of(cls, images: Sequence[Compared], label: int) -> Trust:
        scores = np.concatenate([i.scores[i.labels == label] for i in images])
        explained = np.concatenate([i.explained[i.labels == label] for i in images])
        order = np.argsort(-scores, kind="stable")
        confirmed = np.cumsum(explained[order])
        return cls(scores[order], (confirmed + 1) / (np.arange(len(scores)) + 3))

    def __call__(self, score: float) -> float:
        """The trust in a detection with this score, one of those that it was made of."""
        last = int(np.searchsorted(-self.scores, -score, side="right")) - 1
        return float(self.precision[last])


def supports(dataset: DetectionDataset, images: Mapping[int, Compared]) -> list[Floats]:
    """The supports of all objects of each class, ascending."""
    rows = [dataset.records.annotation(i) for i in images]
    labels = np.concatenate([a.labels[~a.is_ignore] for a in rows])
    values = np.concatenate([image.support for image in images.values()])
    return [np.sort(values[labels == label]) for label in range(len(dataset.classes))]


def missing(index: int, image: Compared, trust: Sequence[Trust]) -> list[Suspect]:
    """Detections at a place where no object is annotated."""
    suspects = []
    for d in np.flatnonzero(~image.explained & ~image.taken).tolist():
        label, score = int(image.labels[d]), float(image.scores[d])
        box = corners(image.boxes[d].tolist())
        suspects.append(Suspect("missing", index, box, None, None, label, score, trust[label](score)))
    return suspects


def wrong_boxes(
    dataset: DetectionDataset, index: int, image: Compared, trust: Sequence[Trust], support: Sequence[Floats]
) -> list[Suspect]:
    """Boxes where another class is detected, or where nothing is."""
    a = dataset.records.annotation(index)
    suspects = []
    for g, row in enumerate(np.flatnonzero(~a.is_ignore).tolist()):
        label, own, box = int(a.labels[row]), float(image.support[g]), corners(a.boxes[row].tolist())
        # Of the objects of the class, the fraction that the detector is surer of.
        doubt = 1 - float(np.searchsorted(support[label], own, side="right")) / len(support[label])
        d = int(image.other[g])
        if d >= 0:
            found, score = int(image.labels[d]), float(image.scores[d])
            # Two witnesses: what is there, and what is not.
            weight = 1 - (1 - trust[found](score)) * (1 - doubt)
            suspects.append(Suspect("swapped", index, box, row, label, found, score, weight))
        elif own == 0:
            suspects.append(Suspect("not found", index, box, row, label, None, own, DOUBT * doubt))
    return suspects
