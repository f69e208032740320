"""Made-up trainings for tests of the statistics: images with objects, and what a detector of given skill finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detkit.evaluate.arrays import GroundTruth, Shard


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
    """What one training finds.

    Trainings of one detector find mostly the same: what is hard is hard for all. So most chance belongs to the
    image, and a share `luck` of it to the training. luck: 1 for trainings that have nothing in common.
    """
    bench = int(truth.boxes.sum())  # another bench has other images, and other things are hard in them
    parts = [one_image(Blend(random, (bench, i), luck), truth, i, skill, classes) for i in range(len(truth.image_ids))]
    boxes, scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    counts = np.array([len(p[1]) for p in parts])
    return Shard(truth.image_ids, counts, boxes.astype(np.float32), scores.astype(np.float32), labels)


class Blend:
    """Chance of an image, a share of which is replaced by that of the training."""

    def __init__(self, own: np.random.Generator, image: tuple[int, int], luck: float) -> None:
        self.own, self.common, self.luck = own, np.random.default_rng(image), luck

    def draw(self, kind: str, size: int | tuple[int, ...], *arguments: float) -> NDArray[np.float64]:
        """Numbers of a distribution, each from the training with probability `luck`."""
        common, own = (np.asarray(getattr(r, kind)(*arguments, size)) for r in (self.common, self.own))
        return np.where(self.own.random(size) < self.luck, own, common)


def one_image(
    blend: Blend, truth: GroundTruth, i: int, skill: Skill, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes, scores and labels found in image i."""
    own = slice(truth.offsets[i], truth.offsets[i + 1])
    count = own.stop - own.start
    found = blend.draw("random", count) < skill.recall
    there = truth.boxes[own].astype(np.float64)
    side = np.tile(there[:, 2:] - there[:, :2], 2)
    moved = there + blend.draw("normal", (count, 4), 0.0, 1.0) * skill.jitter * side
    moved = np.concatenate((np.minimum(moved[:, :2], moved[:, 2:] - 1), moved[:, 2:]), axis=1)
    good = blend.draw("beta", count, 4, 2)
    false = int(blend.draw("poisson", 1, skill.wrong)[0])
    corner = blend.draw("uniform", (false, 2), 0.0, 300.0)
    extra = np.concatenate((corner, corner + blend.draw("uniform", (false, 2), 20.0, 120.0)), axis=1)
    wrong = blend.draw("integers", false, 0, classes).astype(np.int64)
    return (
        np.concatenate((moved[found], extra)),
        np.concatenate((good[found], blend.draw("beta", false, 2, 5))),
        np.concatenate((truth.labels[own][found], wrong)),
    )
