"""The data that the doctor looks at: its splits, and what their images and boxes are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detkit.boxes import to_xyxy
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import Truth
from detkit.data.doctor.facts import Gathered, gather
from detkit.data.doctor.findings import Corners, Mark, Picture, corners
from detkit.data.doctor.store import ImageFacts
from detkit.utils.types import Bools, Floats, Ints


@dataclass(frozen=True)
class Split:
    """A split with the facts of its images."""

    name: str
    dataset: DetectionDataset
    gathered: Gathered

    @property
    def facts(self) -> dict[int, ImageFacts]:
        return self.gathered.facts

    @property
    def truth(self) -> Truth:
        return self.dataset.records.truth

    @cached_property
    def image_of(self) -> Ints:
        """(M,) index of the image of every box of the file."""
        return self.truth.image_of

    @cached_property
    def corners(self) -> Floats:
        """(M, 4) boxes of the file as xyxy pixels."""
        return to_xyxy(self.truth.boxes)

    @cached_property
    def sizes(self) -> Floats:
        """(M, 2) height and width of the upright image of every box; NaN where it is not known."""
        table = self.dataset.records.sizes.astype(np.float64)
        table[(table <= 0).any(axis=1)] = np.nan
        for index, facts in self.facts.items():
            table[index] = facts.size
        return table[self.image_of]

    @cached_property
    def is_certain(self) -> Bools:
        """(M,) whether the image of every box can be used, so that its size is known."""
        return ~np.isin(self.image_of, list(self.gathered.scan.bad))

    @cached_property
    def objects(self) -> Ints:
        """Rows of `truth` that are usable objects in usable images, and no ignore regions."""
        return np.flatnonzero(self.truth.trained & ~self.truth.is_ignore & self.is_certain)

    def path(self, index: int) -> str:
        return self.dataset.records.path(index)

    def class_name(self, row: int) -> str:
        label = int(self.truth.labels[row])
        return self.dataset.classes.names[label] if label >= 0 else "ignored"

    def box(self, row: int) -> Corners:
        return corners(self.corners[row].tolist())

    def rows(self, index: int) -> range:
        """Rows of `truth` of an image."""
        return self.truth.rows(index)

    def picture(self, index: int, suspects: dict[int, str] | None = None, caption: str = "") -> Picture:
        """An image with its boxes; suspects: row of `truth` -> text beside its box."""
        suspects = suspects or {}
        marks = [
            Mark(self.box(row), suspects.get(row, self.class_name(row)), row in suspects) for row in self.rows(index)
        ]
        return Picture(self.path(index), tuple(sorted(marks, key=lambda mark: mark.suspect)), caption)


@dataclass(frozen=True)
class Subject:
    """What is looked at. place: the file, folder or config. splits: all that there are, in order."""

    place: str
    splits: tuple[Split, ...]

    @classmethod
    def of(cls, place: str, datasets: dict[str, DetectionDataset], *, cached: bool = True) -> Subject:
        """Decodes every image of some data sets, training first; cached: see `gather`."""
        return cls(place, tuple(Split(n, d, gather(d, n, cached=cached)) for n, d in datasets.items()))

    def __iter__(self) -> Iterator[Split]:
        return iter(self.splits)

    @cached_property
    def places(self) -> dict[str, tuple[Split, int]]:
        """Path of an image -> its split and index there."""
        return {split.path(index): (split, index) for split in reversed(self.splits) for index in split.facts}

    @property
    def class_names(self) -> list[str]:
        """The classes of all splits."""
        return list(dict.fromkeys(name for split in self for name in split.dataset.classes.names))
