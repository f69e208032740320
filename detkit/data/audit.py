"""Objects that never reach the network: which a split's transforms make thinner than a pixel or cut off."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.seeding import seeded
from detkit.data.transforms.base import SMALLEST_SIDE, LostObject, Transform, trace_lost_objects

log = logging.getLogger("detkit")

DRAWS = 30
"""Of random transforms, after which an object that was never left counts as one that never reaches the network."""
FEW_DRAWS, REDRAW_SECONDS = 4, 60.0
"""Draws once so much time has gone into drawing again."""
NAMED = 8
SECONDS = 3.0
"""Of looking at a split at the start of a training."""


@dataclass
class LostObjects:
    """What transforms leave out of the `objects` in `images` of the `total` images of a split.

    never: (index of the image, what happened) of objects that are lost in every draw. by_chance: objects that are lost
    in the first epoch alone, by transform.
    """

    name: str
    total: int
    images: int = 0
    objects: int = 0
    never: list[tuple[int, LostObject]] = field(default_factory=list)
    by_chance: Counter[str] = field(default_factory=Counter)
    redraw_seconds: float = 0.0

    def describe(self, dataset: DetectionDataset) -> str | None:
        """A sentence on the objects that never reach the network, with the first of them by name; None for none."""
        if not self.never:
            return None
        by = ", ".join(f"{count} by {name}" for name, count in Counter(lost.by for _, lost in self.never).most_common())
        seen = "" if self.images == self.total else f" (in {self.images} of {self.total} images)"
        named = [f"\n  {name_object(dataset, index, lost)}" for index, lost in self.never[:NAMED]]
        more = f"\n  and {len(self.never) - NAMED} more" if len(self.never) > NAMED else ""
        return (
            f"{self.name}: {len(self.never)} of {self.objects} objects{seen} never reach the network: {by}. A box must "
            f"be at least {SMALLEST_SIDE:g} px wide and high there; larger images in the network keep it, or tiles cut "
            f"out of the images:{''.join(named)}{more}"
        )

    def describe_chance(self) -> str | None:
        """A sentence on objects that only the first epoch loses; None for none."""
        if not self.by_chance:
            return None
        by = ", ".join(f"{count} by {name}" for name, count in self.by_chance.most_common())
        return f"{self.name}: in the first epoch {by} of {self.objects} objects are left out by chance, in others not"


def name_object(dataset: DetectionDataset, index: int, lost: LostObject) -> str:
    """`im0.png box 3 [50, 100, 58, 108]: 0.8x0.8 px at the network's size`."""
    box = [round(v, 2) for v in dataset.records.annotation(index).boxes[lost.row].tolist()]
    size = f"{lost.width:.2g}x{lost.height:.2g} px at the network's size" if lost.width and lost.height else "cut off"
    return f"image {dataset.records.path(index)} box {lost.row + 1} {box}: {size}"


def find_lost_objects(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    indices: Sequence[int] | None = None,
    seconds: float | None = None,
) -> LostObjects:
    """Follows the boxes of a split through its transforms, on blank images of the annotated size.

    draws: epochs that an image is looked at in which objects are lost. seconds: no further image is taken after it.
    """
    moving = [t for t in transforms if t.moves_boxes]
    found = LostObjects(dataset.name, len(dataset))
    started = time.monotonic()
    for index in range(len(dataset)) if indices is None else indices:
        if seconds is not None and time.monotonic() - started > seconds:
            break
        found.images += 1
        count = int((~dataset.records.annotation(index).is_ignore).sum())
        if count:
            found.objects += count
            _follow(dataset, moving, index, seed, draws, found)
    return found


def _follow(
    dataset: DetectionDataset, transforms: Sequence[Transform], index: int, seed: int, draws: int, found: LostObjects
) -> None:
    """Adds to `found` what is lost of an image."""
    drawn, _ = _draw(dataset, transforms, index, seed, 0)
    first = lost = {item.row: item for item in drawn}
    started = time.monotonic()
    for epoch in range(1, draws if found.redraw_seconds < REDRAW_SECONDS else min(draws, FEW_DRAWS)):
        if not lost:
            break
        drawn, is_random = _draw(dataset, transforms, index, seed, epoch)
        again = {item.row for item in drawn}
        lost = {row: item for row, item in lost.items() if row in again}
        if not is_random:
            break
    found.redraw_seconds += time.monotonic() - started
    found.never += [(index, item) for item in lost.values()]
    found.by_chance.update(item.by for row, item in first.items() if row not in lost)


def _draw(
    dataset: DetectionDataset, transforms: Sequence[Transform], index: int, seed: int, epoch: int
) -> tuple[list[LostObject], bool]:
    """What is lost of an image in an epoch, and, but for the first, whether the transforms drew random numbers."""
    a = dataset.records.annotation(index)
    image, boxes, is_ignore = blank(dataset, index), torch.tensor(a.boxes), torch.tensor(a.is_ignore)
    image_id = int(dataset.records.image_ids[index])
    with seeded(seed, epoch, image_id):
        before = _state() if epoch else ()
        try:
            found = trace_lost_objects(transforms, image, boxes, is_ignore)
        except Exception as error:
            # A fault of a transform keeps its traceback, as in the loader; bad input is the user's to mend.
            kind = ValueError if isinstance(error, (ValueError, OSError)) else RuntimeError
            text = f"image {image_id} ({dataset.records.path(index)}): {type(error).__name__}: {error}"
            raise kind(text) from error
        return found, bool(epoch) and _state() != before


def _state() -> tuple[Any, ...]:
    """Where the random generators are."""
    numbers = np.random.get_state()
    return random.getstate(), (bytes(numbers[1].data), numbers[2]), bytes(torch.get_rng_state().numpy().data)  # type: ignore[index]


def blank(dataset: DetectionDataset, index: int) -> Any:
    """A black image of the size that the annotation states, or that the image has where it states none."""
    height, width = dataset.records.sizes[index].tolist()
    if height > 0:
        return Image.new("RGB", (width, height))
    if dataset.reads_files:
        height, width = dataset.image_size(index)
        return Image.new("RGB", (width, height))
    return dataset.load_image(index)


def warn_of_lost_objects(
    train: tuple[DetectionDataset, Sequence[Transform]], val: tuple[DetectionDataset, Sequence[Transform]], seed: int
) -> None:
    """At the start of a training: a warning for each split of which objects never reach the network.

    Raises ValueError if that is all of the training objects.
    """
    for (dataset, transforms), own_seed, draws in ((train, seed, DRAWS), (val, 0, 1)):
        order = _spread(len(dataset))
        found = find_lost_objects(dataset, transforms, seed=own_seed, draws=draws, indices=order, seconds=SECONDS)
        text = found.describe(dataset)
        if text is None:
            continue
        if dataset is train[0] and len(found.never) == found.objects and found.images == found.total:
            raise ValueError(f"there is nothing to learn: {text}")
        log.warning("%s%s", text, "" if dataset is train[0] else "\nAP counts them, and the network hardly sees them")


def _spread(length: int) -> list[int]:
    """All indices, in an order of which every beginning is spread over the whole."""
    order: list[int] = torch.randperm(length, generator=torch.Generator().manual_seed(0)).tolist()
    return order
