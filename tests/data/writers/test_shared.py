"""The sets of ../shared in every layout: the same boxes, and the same first batch of a training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit import datasets
from detkit.data.datasets.base import DetectionDataset
from detkit.data.reading import read_source
from detkit.data.writers.convert import convert
from detkit.registry import DATASETS
from detkit.structures import Batch
from tests.data.writers.sets import rows, training

TRANSFORMS: list[dict[str, Any]] = [
    {"type": "ResizeShortestEdge", "short": [96], "max_size": 128},
    {"type": "RandomHorizontalFlip"},
]


def first_batch(dataset: DetectionDataset) -> Batch:
    return next(iter(datasets.batches(dataset, transforms=TRANSFORMS, batch_size=4, seed=3)))


def classes_of(dataset: DetectionDataset) -> list[list[str]]:
    """The classes of all boxes of each image, unusable ones included."""
    return [[row[0] for row in image] for image in rows(dataset)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bccd", "fruit", "cards", "traffic_lights"])
def test_every_layout_gives_the_same_boxes_and_the_same_first_batch(
    name: str, shared_dir: Path, tmp_path: Path
) -> None:
    before = read_source(shared_dir / "data" / name).choose([]).splits
    formats: list[Any] = ["coco", "voc", "yolo", "csv"]
    for to in formats:
        written = convert(before, tmp_path / to, to, images="symlink")
        found = read_source(tmp_path / to).splits
        assert list(found) == list(before)
        for split, dataset in before.items():
            for after in (found[split], DATASETS.build(written.nodes[split])):
                assert training(after) == training(dataset)
                assert classes_of(after) == classes_of(dataset)
        a, b = first_batch(before["train"]), first_batch(found["train"])
        assert torch.equal(a.images, b.images)
        for x, y in zip(a.targets, b.targets, strict=True):
            assert torch.equal(x.boxes, y.boxes)
            assert torch.equal(x.labels, y.labels)
