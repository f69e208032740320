"""`detkit.datasets.load`: which files it takes for a data set, and what it asks for where there are several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit import datasets
from detkit.config import load_config
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.datasets.voc import VocDataset
from tests.conftest import Folder
from tests.refusals import Refuses
from tests.test_readme import write_voc


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path / "voc", ShapesDataset(num_images=6, size=64))
    return tmp_path / "voc"


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("val.json", "val"),
        ("val.json", "."),
        ("val.json", "images"),
        ("val.json", "images/val"),
        ("annotations/val.json", "val"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("val/_annotations.coco.json", "val"),
    ],
)
def test_the_images_of_a_coco_file_are_found_near_it(folder: Folder, tmp_path: Path, file: str, images: str) -> None:
    there = tmp_path / "there"
    shutil.copytree(folder.root / "val", there / images)
    (there / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder.root / "val.json", there / file)
    dataset = datasets.load(there / file)
    assert isinstance(dataset, CocoDataset)
    assert (len(dataset), dataset.classes.names) == (3, ("cat",))
    assert dataset.records.path(0) == str(there / images / "val0.jpg")


def test_a_folder_stands_for_its_only_file_or_that_of_a_split(refuses: Refuses, folder: Folder, tmp_path: Path) -> None:
    assert datasets.load(str(folder.root), split="val").records.file_name(0) == "val0.jpg"
    with refuses(ValueError):
        datasets.load(folder.root)
    with refuses(ValueError):
        datasets.load(folder.root, split="test")
    (folder.root / "val.json").unlink()
    assert datasets.load(folder.root).records.file_name(0) == "train0.jpg"
    trainval = tmp_path / "coco/annotations"
    trainval.mkdir(parents=True)
    for name in ("instances_train2017", "instances_val2017"):
        shutil.copy(folder.root / "train.json", trainval / f"{name}.json")
    for split in ("train", "val"):
        shutil.copytree(folder.root / "train", tmp_path / "coco" / f"{split}2017")
    for split in ("train", "train2017"):
        dataset = datasets.load(tmp_path / "coco", split=split)
        assert dataset.records.path(0) == str(tmp_path / "coco/train2017/train0.jpg")


def test_a_voc_folder_has_its_own_splits(refuses: Refuses, voc: Path) -> None:
    with refuses(ValueError):
        datasets.load(voc)
    with refuses(ValueError):
        datasets.load(voc, split="val", images=voc)
    dataset = datasets.load(voc, split="val", class_names=None)
    assert isinstance(dataset, VocDataset)
    assert len(dataset) == 2
    (voc / "ImageSets/Main/train.txt").rename(voc / "ImageSets/Main/cat_train.txt")
    assert len(datasets.load(voc)) == 2


def test_options_of_the_reader_are_passed_on(refuses: Refuses, folder: Folder) -> None:
    assert datasets.load(folder.root / "val.json", class_map={"cat": "animal"}).classes.names == ("animal",)
    with refuses(ValueError):
        datasets.load(folder.root / "val.json", class_mapp={})


def test_what_is_no_data_set_is_named(refuses: Refuses, folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with refuses(ValueError):
        datasets.load(tmp_path / "empty")
    with refuses(FileNotFoundError):
        datasets.load(tmp_path / "gone.json")
    shutil.rmtree(folder.root / "val")
    with refuses(FileNotFoundError):
        datasets.load(folder.root / "val.json")
    (folder.root / "val.json").write_text(json.dumps({"images": 3}))
    with refuses(ValueError):
        datasets.load(folder.root / "val.json")


def test_batches_are_those_of_a_training(folder: Folder) -> None:
    dataset = datasets.load(folder.root / "train.json")
    flip = {"type": "RandomHorizontalFlip"}
    first = next(iter(datasets.batches(dataset, batch_size=2, transforms=[flip], seed=1)))
    again = next(iter(datasets.batches(dataset, batch_size=2, transforms=[flip], seed=1)))
    assert torch.equal(first.images, again.images)
    assert first.images.shape == (2, 3, 64, 96)
    everything = list(datasets.batches(dataset, train=False, batch_size=2))
    assert [len(batch) for batch in everything] == [2, 1]
    assert [i for batch in everything for i in batch.image_ids] == [1, 2, 3]
    config: Any = load_config(folder.config)
    (resized, *_) = datasets.batches(dataset, train=False, batch_size=1, transforms=config)
    assert resized.sizes.tolist() == [[64, 96]]
