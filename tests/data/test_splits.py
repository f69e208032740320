"""Splits that are made, and written down."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.cli import main
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.splits import SplitSettings, class_table, deal_out, make_split, split_lists, split_nodes
from detkit.registry import DATASETS
from tests.data.writers.sets import Picture, coco_set
from tests.refusals import Refuses

A, B = ("a", 1.0, 2.0, 10.0, 20.0), ("b", 3.0, 4.0, 11.0, 21.0)


def coco_node(root: Path) -> dict[str, Any]:
    return {"type": "CocoDataset", "annotations": f"{root}/a.json", "images": f"{root}/images"}


@pytest.fixture
def data(tmp_path: Path) -> DetectionDataset:
    """20 images in two folders: a in all but 4, which have no object; b in 5 of them."""
    pictures = [Picture(f"{'xy'[i % 2]}/{i}.png", [] if i < 4 else [A, B] if i % 4 == 0 else [A]) for i in range(20)]
    return coco_set(tmp_path / "in", ["a", "b"], pictures)


def test_every_class_gets_its_fraction(data: DetectionDataset) -> None:
    split = make_split(data, SplitSettings(val=0.25))
    assert sorted([*split["train"], *split["val"]]) == sorted(f"{'xy'[i % 2]}/{i}.png" for i in range(20))
    val = {int(name[2:-4]) for name in split["val"]}
    assert len(val) == 5
    assert len(val & {0, 1, 2, 3}) == 1
    assert len(val & {4, 8, 12, 16}) == 1


def test_a_split_depends_on_the_seed_alone(data: DetectionDataset) -> None:
    options = SplitSettings(val=0.3, test=0.2)
    assert make_split(data, options) == make_split(data, options)
    assert make_split(data, options) != make_split(data, replace(options, seed=1))
    assert [len(names) for names in make_split(data, options).values()] == [10, 6, 4]


def test_rare_classes_are_trained_on_first() -> None:
    classes = np.zeros((100, 3), bool)
    classes[:, 0] = True
    classes[7, 1] = True  # one image: train
    classes[20:30, 2] = True
    for seed in range(5):
        val = deal_out(classes, np.array([0.8, 0.2]), seed) == 1
        assert val.sum() == 20
        assert not val[7]
        assert val[20:30].sum() == 2


def test_each_split_gets_an_image(refuses: Refuses) -> None:
    for count in (2, 3):
        split = make_split(ShapesDataset(num_images=count), SplitSettings(val=0.01))
        assert [len(names) for names in split.values()] == [count - 1, 1]
    with refuses(ValueError):
        make_split(ShapesDataset(num_images=1), SplitSettings())


def test_images_without_objects_and_ignore_regions_count_as_a_class(tmp_path: Path) -> None:
    pictures = [Picture("1.png", [A]), Picture("2.png"), Picture("3.png", [B], crowd=[0])]
    table = class_table(coco_set(tmp_path, ["a", "b"], pictures))
    assert table.tolist() == [[True, False, False], [False, False, True], [False, False, True]]


def test_lists_are_written_once_and_read_ever_after(
    tmp_path: Path, data: DetectionDataset, caplog: pytest.LogCaptureFixture
) -> None:
    options = SplitSettings(file=str(tmp_path / "lists"))
    first = split_lists(data, options)
    assert (tmp_path / "lists/val.txt").read_text().splitlines() == first["val"]
    assert split_lists(data, replace(options, seed=5, val=0.5)) == first
    nodes = split_nodes(coco_node(tmp_path / "in"), first, options)
    assert nodes["val"]["images"] == str(tmp_path / "lists/val.txt")
    assert len(DATASETS.build(nodes["train"])) == 16
    pictures = [Picture(f"{'xy'[i % 2]}/{i}.png") for i in range(21)]
    with caplog.at_level(logging.WARNING):
        assert split_lists(coco_set(tmp_path / "in", ["a"], pictures), options) == first
    assert "1 image is in no list" in caplog.text


def test_names_stand_in_the_config_without_a_folder(tmp_path: Path, data: DetectionDataset) -> None:
    nodes = split_nodes(coco_node(tmp_path / "in"), make_split(data, SplitSettings()), SplitSettings())
    assert len(nodes["val"]["images"]) == 4
    assert len(DATASETS.build(nodes["val"])) == 4


def test_lists_that_contradict_each_other(tmp_path: Path, data: DetectionDataset, refuses: Refuses) -> None:
    options = SplitSettings(file=str(tmp_path / "lists"))
    split_lists(data, options)
    (tmp_path / "lists/train.txt").rename(tmp_path / "lists/t.txt")
    with refuses(ValueError):
        split_lists(data, options)
    (tmp_path / "lists/train.txt").write_text((tmp_path / "lists/val.txt").read_text())
    with refuses(ValueError):
        split_lists(data, options)
    with refuses(ValueError):
        SplitSettings(val=0.6, test=0.4)


def test_the_verb_writes_lists_and_prints_a_config(
    tmp_path: Path, data: DetectionDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "split", str(tmp_path / "in/a.json"), str(tmp_path / "lists"), "--val", "0.25"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "train: 15 images (3 without objects)" in text
    assert f"images: {tmp_path}/lists/val.txt}}" in text
    assert len((tmp_path / "lists/train.txt").read_text().splitlines()) == 15
    assert main(words) == 2
    assert "is not empty; choose a new folder" in capsys.readouterr().err
