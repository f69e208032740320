import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, build_eval_loader, build_train_loader, collate_images
from detkit.data.seeding import seeded
from detkit.data.transforms.base import Transform
from detkit.registry import TRANSFORMS
from detkit.structures import Batch
from tests.refusals import Refuses

NODES: list[dict[str, Any]] = [{"type": "RandomHorizontalFlip"}, {"type": "ColorJitter", "brightness": 0.4}]


@pytest.fixture(scope="module")
def dataset() -> ShapesDataset:
    return ShapesDataset(num_images=10, size=64)


def train(
    dataset: ShapesDataset, steps: int, *, workers: int = 0, batch: int = 4, **options: Any
) -> list[Batch] | None:
    loader = build_train_loader(
        dataset, [TRANSFORMS.build(n) for n in NODES], LoaderOptions(batch_size=batch, num_workers=workers),
        **{"seed": 3, **options},
    )  # fmt: skip
    return list(itertools.islice(loader, steps))


def same(a: Batch, b: Batch) -> None:
    assert a.image_ids == b.image_ids
    assert torch.equal(a.images, b.images)
    for s, t in zip(a.targets, b.targets, strict=True):
        assert torch.equal(s.boxes, t.boxes)
        assert torch.equal(s.labels, t.labels)
        assert torch.equal(s.ignore, t.ignore)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(dataset: ShapesDataset, workers: int) -> None:
    for a, b in zip(train(dataset, 5), train(dataset, 5, workers=workers), strict=True):
        same(a, b)


def test_every_epoch_has_every_image_once_in_another_order(dataset: ShapesDataset) -> None:
    ids = [i for batch in train(dataset, 5) for i in batch.image_ids]
    assert sorted(ids[:10]) == sorted(ids[10:]) == list(range(1, 11))
    assert ids[:10] != ids[10:]
    assert ids != [i for batch in train(dataset, 5, seed=4) for i in batch.image_ids]


def test_augmentation_differs_between_epochs_and_images_are_the_seeds(dataset: ShapesDataset) -> None:
    first, second = (
        {i: x for b in train(dataset, 2, batch=5, start_step=s) for i, x in zip(b.image_ids, b.images, strict=True)}
        for s in (0, 2)
    )
    assert any(not torch.equal(first[i], second[i]) for i in first)


def test_starting_later_is_the_same_as_going_there(dataset: ShapesDataset) -> None:
    for a, b in zip(train(dataset, 7)[4:], train(dataset, 3, start_step=4), strict=True):
        same(a, b)


@pytest.mark.parametrize(("world", "micro"), [(2, 1), (1, 2), (2, 2)])
def test_processes_and_micro_batches_share_the_same_images_out(dataset: ShapesDataset, world: int, micro: int) -> None:
    whole = train(dataset, 3)
    parts = [train(dataset, 3 * micro, rank=r, world_size=world, micro_batches=micro) for r in range(world)]
    for step, batch in enumerate(whole):
        mine = [i for p in parts for b in p[step * micro : (step + 1) * micro] for i in b.image_ids]
        assert sorted(mine) == sorted(batch.image_ids)


def test_a_batch_that_can_not_be_split_is_refused(refuses: Refuses, dataset: ShapesDataset) -> None:
    with refuses(ValueError):
        train(dataset, 1, world_size=3)


def test_evaluation_sees_every_image_once_in_order(dataset: ShapesDataset) -> None:
    options = LoaderOptions(batch_size=4, num_workers=0)
    assert [i for b in build_eval_loader(dataset, [], options) for i in b.image_ids] == list(range(1, 11))
    shards = [build_eval_loader(dataset, [], options, rank=r, world_size=3) for r in range(3)]
    assert sorted(i for s in shards for b in s for i in b.image_ids) == list(range(1, 11))


def test_the_callers_generators_are_left_alone(dataset: ShapesDataset) -> None:
    def draws() -> tuple[float, float, float]:
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = draws()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    train(dataset, 3)
    train(dataset, 1, workers=1)
    assert draws() == expected
    with seeded(1, 2, 3):
        a = draws()
    with seeded(1, 2, 3):
        assert draws() == a
    with seeded(1, 2, 4):
        assert draws() != a


def test_batches_are_padded_with_zeros_right_and_below() -> None:
    a, b = torch.ones(3, 10, 40, dtype=torch.uint8), torch.full((3, 33, 7), 2, dtype=torch.uint8)
    images, sizes = collate_images([a, b], 32)
    assert images.shape == (2, 3, 64, 64)
    assert sizes.tolist() == [[10, 40], [33, 7]]
    assert images[0].sum() == a.sum()
    assert images[1, :, :33, :7].eq(2).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_is_named(refuses: Refuses, tmp_path: Path, workers: int) -> None:
    from detkit.data.datasets.coco import CocoDataset

    made = ShapesDataset(num_images=3, size=64)
    made.write_coco(tmp_path / "images", tmp_path / "a.json")
    (tmp_path / "images/train_000002.png").write_text("broken")
    dataset = CocoDataset(annotations=str(tmp_path / "a.json"), images=str(tmp_path / "images"))
    loader = build_eval_loader(dataset, [], LoaderOptions(batch_size=1, num_workers=workers))
    with refuses(ValueError):
        list(loader)


def test_a_data_loader_pins_the_images(dataset: ShapesDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    (batch,) = train(dataset, 1)
    pinned = pin_memory(batch)
    assert torch.equal(pinned.images, batch.images + 1)
    assert pinned.image_ids == batch.image_ids


@pytest.mark.gpu
def test_images_arrive_pinned(dataset: ShapesDataset) -> None:
    for workers in (0, 1):
        assert train(dataset, 1, workers=workers)[0].images.is_pinned()


class Breaks(Transform):
    def __call__(self, image: Any, boxes: Any, labels: torch.Tensor) -> None:
        raise KeyError("a fault of a plugin")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_a_transform_names_the_image_and_shows_where(
    refuses: Refuses, dataset: ShapesDataset, workers: int
) -> None:
    loader = build_eval_loader(dataset, [Breaks()], LoaderOptions(batch_size=2, num_workers=workers))
    with refuses(RuntimeError, hide=r", line \d+|\n    [^\n]+") as caught:
        list(loader)
    assert caught.value.__cause__ is not caught.value


def test_every_batch_has_the_shape_that_is_asked_for(refuses: Refuses, dataset: ShapesDataset, tmp_path: Path) -> None:
    options = LoaderOptions(batch_size=4, num_workers=0, pad_to=(65, 100))
    for batch in build_eval_loader(dataset, [], options):
        assert batch.images.shape[-2:] == (96, 128)
        assert batch.sizes.unique(dim=0).tolist() == [[64, 64]]
        assert not batch.images[:, :, 64:].any()
    loader = build_eval_loader(dataset, [], LoaderOptions(batch_size=4, num_workers=0, pad_to=(64, 60)))
    with refuses(ValueError):
        list(loader)


@pytest.mark.parametrize(
    ("argument", "value"), [("pad_to", (0, 5)), ("batch_size", 0), ("num_workers", -1), ("size_divisor", 0)]
)
def test_senseless_options_are_named(refuses: Refuses, argument: Any, value: Any) -> None:
    with refuses(ValueError):
        LoaderOptions(**{argument: value})
