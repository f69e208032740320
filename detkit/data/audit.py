"""Audit of a split: objects that never reach the network, as its transforms make them too thin or cut them off."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL.Image import new as new_image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.seeding import generator_states, seeded
from detkit.data.transforms.base import SMALLEST_SIDE, LostObject, Transform, trace_lost_objects
from detkit.utils.console import indented_list

log = logging.getLogger("detkit")

DRAWS = 30
"""Draws of random transforms in all of which an object must be lost to count as never reaching the network."""
FEW_DRAWS, REDRAW_SECONDS = 4, 60.0
"""Draws after so much time has gone into drawing again."""
NAMED = 8
SECONDS = 3.0
"""Time for a split at the start of a training."""


@dataclass
class AuditReport:
    """Objects that transforms remove, among the `objects` in `images` of the `total` images of a split.

    never: (index of the image, the object) of those that are lost in every draw. by_chance: by transform, how many are
    lost in the first epoch alone.
    """

    name: str
    total: int
    images: int = 0
    objects: int = 0
    never: list[tuple[int, LostObject]] = field(default_factory=list)
    by_chance: Counter[str] = field(default_factory=Counter)
    redraw_seconds: float = 0.0

    def describe(self, dataset: DetectionDataset) -> str | None:
        """A sentence on the objects that never reach the network, which names the first few; None for none."""
        if not self.never:
            return None
        by = ", ".join(f"{count} by {name}" for name, count in Counter(lost.by for _, lost in self.never).most_common())
        seen = "" if self.images == self.total else f" (in {self.images} of {self.total} images)"
        # Naming an object reads its annotation, so only those that are shown are named.
        named = [name_object(dataset, *lost) if i < NAMED else "" for i, lost in enumerate(self.never)]
        return (
            f"{self.name}: {len(self.never)} of {self.objects} objects{seen} never reach the network: {by}. A box must "
            f"stay at least {SMALLEST_SIDE:g} px wide and high: use larger images in the network, or cut the images "
            f"into tiles:{indented_list(named, NAMED)}"
        )

    def describe_chance(self) -> str | None:
        """A sentence on the objects that only the first epoch loses; None for none."""
        if not self.by_chance:
            return None
        by = ", ".join(f"{count} by {name}" for name, count in self.by_chance.most_common())
        return f"{self.name}: in the first epoch {by} of {self.objects} objects are lost by chance, in other epochs not"


def name_object(dataset: DetectionDataset, index: int, lost: LostObject) -> str:
    """`im0.png box 3 [50, 100, 58, 108]: 0.8x0.8 px at the network's size`."""
    box = [round(v, 2) for v in dataset.records.annotation(index).boxes[lost.row].tolist()]
    size = f"{lost.width:.2g}x{lost.height:.2g} px at the network's size" if lost.width and lost.height else "cut off"
    return f"image {dataset.records.path(index)} box {lost.row + 1} {box}: {size}"


def audit_objects(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    indices: Sequence[int] | None = None,
    seconds: float | None = None,
) -> AuditReport:
    """Follows the boxes of a split through its transforms, on black images of the annotated size.

    draws: epochs that are drawn of an image with lost objects. seconds: no further image is taken after it.
    """
    moving = [t for t in transforms if t.moves_boxes]
    report = AuditReport(dataset.name, len(dataset))
    started = time.monotonic()
    for index in range(len(dataset)) if indices is None else indices:
        if seconds is not None and time.monotonic() - started > seconds:
            break
        report.images += 1
        count = int((~dataset.records.annotation(index).is_ignore).sum())
        if count:
            report.objects += count
            _follow(dataset, moving, index, seed, draws, report)
    return report


def _follow(
    dataset: DetectionDataset, transforms: Sequence[Transform], index: int, seed: int, draws: int, report: AuditReport
) -> None:
    """Adds what is lost of an image to the report."""
    drawn, _ = _draw(dataset, transforms, index, seed, 0)
    first = lost = {item.row: item for item in drawn}
    started = time.monotonic()
    for epoch in range(1, draws if report.redraw_seconds < REDRAW_SECONDS else min(draws, FEW_DRAWS)):
        if not lost:
            break
        drawn, is_random = _draw(dataset, transforms, index, seed, epoch)
        again = {item.row for item in drawn}
        lost = {row: item for row, item in lost.items() if row in again}
        if not is_random:
            break
    report.redraw_seconds += time.monotonic() - started
    report.never += [(index, item) for item in lost.values()]
    report.by_chance.update(item.by for row, item in first.items() if row not in lost)


def _draw(
    dataset: DetectionDataset, transforms: Sequence[Transform], index: int, seed: int, epoch: int
) -> tuple[list[LostObject], bool]:
    """What is lost of an image in an epoch, and whether the transforms drew random numbers (False for epoch 0)."""
    a, (height, width) = dataset.records.annotation(index), dataset.records.sizes[index].tolist()
    if height <= 0:
        height, width = dataset.image_size(index)
    image, boxes, is_ignore = new_image("RGB", (width, height)), torch.tensor(a.boxes), torch.tensor(a.is_ignore)
    image_id = int(dataset.records.image_ids[index])
    with seeded(seed, epoch, image_id):
        before = generator_states() if epoch else {}
        try:
            lost = trace_lost_objects(transforms, image, boxes, is_ignore)
        except Exception as error:
            # A fault of a transform keeps its traceback, as in the loader; bad input is for the user to correct.
            kind = ValueError if isinstance(error, (ValueError, OSError)) else RuntimeError
            text = f"image {image_id} ({dataset.records.path(index)}): {type(error).__name__}: {error}"
            raise kind(text) from error
        return lost, bool(epoch) and generator_states() != before


def warn_of_lost_objects(
    train: tuple[DetectionDataset, Sequence[Transform]], val: tuple[DetectionDataset, Sequence[Transform]], seed: int
) -> None:
    """Warns, at the start of a training, of objects that never reach the network.

    Raises ValueError if no training object does.
    """
    for (dataset, transforms), split_seed, draws in ((train, seed, DRAWS), (val, 0, 1)):
        # In a random order, so that the first ones are a sample of the split.
        order: list[int] = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
        report = audit_objects(dataset, transforms, seed=split_seed, draws=draws, indices=order, seconds=SECONDS)
        text = report.describe(dataset)
        if text is None:
            continue
        if dataset is train[0] and len(report.never) == report.objects and report.images == report.total:
            raise ValueError(f"nothing to train on: {text}")
        hint = "" if dataset is train[0] else "\nAP counts these objects, although the network hardly sees them"
        log.warning("%s%s", text, hint)
