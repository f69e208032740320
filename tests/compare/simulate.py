"""Made-up trainings for tests of the statistics: images with objects, and what a detector of given skill finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detkit.evaluate.coco import GroundTruth, Shard


@dataclass(frozen=True)
class Skill:
    """recall: share of objects found; jitter: of the box edges, in shares of its side; wrong: false boxes an image."""

    recall: float = 0.8
    jitter: float = 0.10
    wrong: float = 2.0


def make_images(random: np.random.Generator, count: int = 60, classes: int = 2) -> GroundTruth:
    """Objects of 20 to 120 px; some images hold none, some hold ignore regions."""
    objects = random.poisson(3.0, count)
    total = int(objects.sum())
    sides, corner = random.uniform(20, 120, (total, 2)), random.uniform(0, 300, (total, 2))
    boxes = np.concatenate((corner, corner + sides), axis=1).astype(np.float32)
    return GroundTruth(
        image_ids=np.arange(count) * 3 + 1,
        offsets=np.concatenate(([0], np.cumsum(objects))),
        boxes=boxes,
        labels=random.integers(0, classes, total),
        crowd=random.random(total) < 0.03,
        area=sides.prod(axis=1).astype(np.float64),
    )


def train(random: np.random.Generator, truth: GroundTruth, skill: Skill, luck: float, classes: int = 2) -> Shard:
    """What one training finds. luck: standard deviation of the run's own effect on its skill, in shares."""
    effect = np.exp(random.normal(0, luck, 3))
    recall, jitter, wrong = (
        min(0.98, skill.recall * effect[0] ** 0.3),
        skill.jitter * effect[1],
        skill.wrong * effect[2],
    )
    parts = [one_image(random, truth, i, recall, jitter, wrong, classes) for i in range(len(truth.image_ids))]
    boxes, scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    counts = np.array([len(p[1]) for p in parts])
    return Shard(truth.image_ids, counts, boxes.astype(np.float32), scores.astype(np.float32), labels)


def one_image(
    random: np.random.Generator, truth: GroundTruth, i: int, recall: float, jitter: float, wrong: float, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes, scores and labels found in image i."""
    own = slice(truth.offsets[i], truth.offsets[i + 1])
    found = random.random(own.stop - own.start) < recall
    there = truth.boxes[own][found].astype(np.float64)
    side = np.tile(there[:, 2:] - there[:, :2], 2)
    moved = there + random.normal(0, 1, there.shape) * jitter * side
    moved = np.concatenate((np.minimum(moved[:, :2], moved[:, 2:] - 1), moved[:, 2:]), axis=1)
    good = random.beta(4, 2, len(there))
    false = random.poisson(wrong)
    corner = random.uniform(0, 300, (false, 2))
    extra = np.concatenate((corner, corner + random.uniform(20, 120, (false, 2))), axis=1)
    return (
        np.concatenate((moved, extra)),
        np.concatenate((good, random.beta(2, 5, false))),
        np.concatenate((truth.labels[own][found], random.integers(0, classes, false))),
    )
