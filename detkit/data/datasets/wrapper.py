"""The contract of a data set made of others: their images by index, their problems, their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL.Image import Image

from detkit.data.datasets.base import DetectionDataset, Problems, Records, with_images
from detkit.data.datasets.images import ImageOptions
from detkit.registry import DATASETS
from detkit.structures import ClassMap
from detkit.utils.types import Tree


class WrapperDataset(DetectionDataset):
    """Images of one or several other data sets, in any order and number.

    A subclass's constructor calls `wrap`.
    """

    def wrap(
        self,
        name: str,
        parts: Sequence[DetectionDataset],
        classes: ClassMap,
        records: Records,
        sources: Iterable[tuple[int, int]],
    ) -> None:
        """Takes over what the parts have.

        Args:
            name: as in messages.
            parts: the data sets.
            classes: their classes.
            records: of all images.
            sources: for each image its part and its index there.
        """
        self.parts, self.name, self.classes, self.records = list(parts), name, classes, records
        self.sources = np.array(list(sources), np.int64).reshape(-1, 2)
        self.problems = Problems()
        for part in parts:
            self.problems.merge(part.problems)
        self.keep_empty = all(part.keep_empty for part in parts)
        self.left_out = {path: why for part in parts for path, why in part.left_out.items()}
        self.reads_files = all(part.reads_files for part in parts)
        self._with_options: dict[ImageOptions, list[DetectionDataset]] = {}

    def load_image(self, index: int) -> Image:
        part, inner = self.sources[index].tolist()
        image: Image = self._parts()[part].load_image(inner)
        return image

    def origin(self, index: int) -> tuple[DetectionDataset, int]:
        part, inner = self.sources[index].tolist()
        origin: tuple[DetectionDataset, int] = self._parts()[part].origin(inner)
        return origin

    def unread(self, indices: Sequence[int]) -> Problems:
        problems, sources = Problems(), self.sources[list(indices)]
        for k, part in enumerate(self.parts):
            problems.merge(part.unread(np.unique(sources[sources[:, 0] == k, 1]).tolist()))
        return problems

    def _parts(self) -> list[DetectionDataset]:
        """The parts, which read images as this data set does."""
        if self.image_options not in self._with_options:
            self._with_options[self.image_options] = [with_images(part, self.image_options) for part in self.parts]
        return self._with_options[self.image_options]


def build_part(node: Tree | DetectionDataset) -> DetectionDataset:
    """The data set of a config node; one that is built already stays."""
    dataset: DetectionDataset = DATASETS.build(node) if isinstance(node, Mapping) else node
    return dataset
