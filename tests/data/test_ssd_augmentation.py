"""SSD's augmentation is a function of (seed, epoch, image id)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, Sample, Samples, build_train_loader
from detkit.data.seeding import seeded
from detkit.data.transforms.base import Transform
from detkit.registry import TRANSFORMS

CHAIN: list[dict[str, Any]] = [
    {"type": "RandomPhotometricDistort"},
    {"type": "RandomZoomOut"},
    {"type": "RandomIoUCrop"},
    {"type": "RandomHorizontalFlip"},
    {"type": "Resize", "height": 96, "width": 96},
]
EPOCHS = range(6)


def chain() -> list[Transform]:
    return [TRANSFORMS.build(node) for node in CHAIN]


@pytest.fixture(scope="module")
def dataset() -> ShapesDataset:
    return ShapesDataset(num_images=6, size=64)


def content(sample: Any) -> tuple[Tensor, Tensor, Tensor]:
    assert isinstance(sample, Sample), sample
    return sample.image, sample.targets.boxes, sample.targets.labels


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_same_for_the_same_whatever_came_before(dataset: ShapesDataset) -> None:
    first = [content(Samples(dataset, chain(), seed=3)[epoch, 1]) for epoch in EPOCHS]
    torch.manual_seed(99)
    torch.rand(17)
    again = Samples(dataset, chain(), seed=3)
    backwards = [content(again[epoch, 1]) for epoch in reversed(EPOCHS)][::-1]
    assert all(same(a, b) for a, b in zip(first, backwards, strict=True))


def test_another_epoch_seed_or_image_draws_anew(dataset: ShapesDataset) -> None:
    samples = Samples(dataset, chain(), seed=3)
    images = [content(samples[epoch, 1])[0] for epoch in EPOCHS]
    images.append(content(Samples(dataset, chain(), seed=4)[0, 1])[0])
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize("node", CHAIN[:4], ids=lambda n: n["type"])
def test_each_leaves_the_global_generators_alone_and_takes_nothing_else(node: Any, dataset: ShapesDataset) -> None:
    """What comes out follows from the seeding alone, and the stream outside goes on as if nothing had run."""
    samples = Samples(dataset, [TRANSFORMS.build(node)], seed=0)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = content(samples[2, 4])
    assert torch.equal(torch.rand(3), expected)
    assert same(first, content(samples[2, 4]))
    with seeded(0, 2, 4):
        inside = torch.rand(1)
    assert not torch.equal(inside, expected[:1])


def test_the_number_of_workers_changes_nothing(dataset: ShapesDataset) -> None:
    batches = []
    for workers in (0, 2):
        options = LoaderOptions(batch_size=3, num_workers=workers, size_divisor=1)
        loader = iter(build_train_loader(dataset, chain(), options, seed=5))
        batches.append([next(loader) for _ in range(4)])
    for alone, shared in zip(*batches, strict=True):
        assert alone.images.shape == (3, 3, 96, 96)
        assert torch.equal(alone.images, shared.images)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(alone.targets, shared.targets, strict=True))
