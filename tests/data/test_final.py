"""The last steps of a training have transforms of their own, from the same step on however it is run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detkit.config import Config, load_config
from detkit.data.build import build_transforms
from detkit.data.datasets.images import ImageOptions
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.final import FinalTransforms, build_final, final_start
from detkit.data.loader import LoaderOptions, build_train_loader
from detkit.data.transforms.geometry import RandomHorizontalFlip, Resize
from detkit.data.transforms.mixing import Mosaic
from detkit.structures import Batch
from tests.refusals import Refuses

MIXED: list[dict[str, Any]] = [
    {"type": "Resize", "height": 64, "width": 64},
    {"type": "Mosaic", "height": 48, "width": 48},
    {"type": "RandomHorizontalFlip"},
]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Loads a config whose training of 20 steps ends as `data.train.final` says."""

    def loaded(final: Any = None, val: Any = (), **train: Any) -> Config:
        section: dict[str, Any] = {"dataset": {"type": "ShapesDataset", "num_images": 4, "size": 64}}
        data = {
            "train": section | {"transforms": MIXED} | ({} if final is None else {"final": final}),
            "val": section | {"transforms": list(val)},
        }
        content = {"_base_": "detkit:scaffold/base.yaml", "data": data, "train": {"iterations": 20} | train}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content | {"schedule": {"type": "Constant"}}))
        return load_config(path)

    return loaded


def test_the_last_steps_are_a_number_or_a_fraction(load: Any) -> None:
    assert final_start(load(), 20) is None
    assert build_final(load(), []) is None
    assert [final_start(load({"iterations": n}), 20) for n in (1, 5, 0.25, 0.05)] == [19, 15, 15, 19]
    assert final_start(load({}), 1000) == 950


def test_without_a_list_nothing_is_mixed(load: Any) -> None:
    config = load({"iterations": 5})
    transforms = build_transforms(config, "train")
    final = build_final(config, transforms)
    assert final is not None
    assert final.start == 15
    assert list(final.transforms) == [transforms[0], transforms[2]]


def test_a_list_of_its_own_keeps_what_is_equal(load: Any) -> None:
    config = load({"iterations": 5, "transforms": [MIXED[0], {"type": "RandomVerticalFlip"}]})
    transforms = build_transforms(config, "train")
    final = build_final(config, transforms)
    assert final is not None
    assert final.transforms[0] is transforms[0]
    assert type(final.transforms[1]).__name__ == "RandomVerticalFlip"
    none = build_final(load({"iterations": 5, "transforms": []}), transforms)
    assert none is not None
    assert none.transforms == ()


def test_senseless_ends_are_refused(load: Any, refuses: Refuses) -> None:
    load({"iterations": 5}).check()
    known = [{"iterations": 21}, {"iterations": 2.5}, {"iterations": 0}]
    for final in [*known, {"iteration": 5}, {"transform": []}]:
        with refuses(ValueError):
            load(final).check()
    with refuses(ValueError, hide=r"(?<=Known: ).*"):  # names that depend on what other tests have registered
        load({"transforms": [{"type": "Mosiac"}]})


def test_mixed_images_are_not_evaluated(load: Any, refuses: Refuses) -> None:
    load(val=[MIXED[0]]).check()
    with refuses(ValueError):
        load(val=MIXED).check()


def test_a_config_without_it_is_as_it_was(load: Any) -> None:
    assert set(load().to_dict()["data"]["train"]) == {"dataset", "transforms"}


def batches(dataset: ShapesDataset, steps: int, **options: Any) -> list[Batch]:
    resize, mosaic, flip = Resize(height=48, width=48), Mosaic(height=48, width=48), RandomHorizontalFlip()
    final = FinalTransforms(3, (resize, flip))
    workers = LoaderOptions(batch_size=4, num_workers=options.pop("workers", 0))
    loader = build_train_loader(dataset, [resize, mosaic, flip], workers, seed=3, final=final, **options)
    return list(itertools.islice(loader, steps))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_step_decides_whoever_loads_it(tmp_path: Path) -> None:
    dataset = ShapesDataset(num_images=10, size=64)
    whole = batches(dataset, 6)
    assert [b.images.shape[-1] for b in whole] == [96, 96, 96, 64, 64, 64]
    plain = build_train_loader(
        dataset, [Resize(height=48, width=48), RandomHorizontalFlip()], LoaderOptions(batch_size=4, num_workers=0),
        seed=3, start_step=3,
    )  # fmt: skip
    assert_same(whole[3:], list(itertools.islice(plain, 3)))
    assert_same(whole, batches(dataset, 6, workers=3))
    for start in (2, 3, 4):
        assert_same(whole[start:], batches(dataset, 6 - start, start_step=start))
    halves = [batches(dataset, 12, rank=r, world_size=2, micro_batches=2)[6:] for r in range(2)]
    assert {tuple(b.images.shape[-2:]) for half in halves for b in half} == {(64, 64)}
    dataset.image_options = ImageOptions(cache="disk", cache_folder=str(tmp_path))
    assert_same(whole, batches(dataset, 6, workers=2))


def test_another_first_resize_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    dataset = ShapesDataset(num_images=6, size=64)
    found = []
    for cache in (None, "disk"):
        dataset.image_options = ImageOptions(cache=cache, cache_folder=str(tmp_path))
        loader = build_train_loader(
            dataset, [Resize(height=48, width=48)], LoaderOptions(batch_size=3, num_workers=0), seed=3,
            final=FinalTransforms(1, (Resize(height=40, width=32),)),
        )  # fmt: skip
        found.append(list(itertools.islice(loader, 2)))
    assert [b.sizes[0].tolist() for b in found[1]] == [[48, 48], [40, 32]]
    assert_same(*found)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.image_ids == b.image_ids
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(s.boxes, t.boxes) for s, t in zip(a.targets, b.targets, strict=True))
