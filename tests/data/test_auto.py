"""`type: auto`: the format, the split that is meant, and a split that is made."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from detkit.data.datasets.auto import AutoDataset, find_data
from detkit.data.datasets.images import ImageOptions
from detkit.data.datasets.shapes import ShapesDataset
from detkit.registry import DATASETS
from tests.refusals import Refuses


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for split, images in (("train", 20), ("test", 3)):
        ShapesDataset(num_images=images, size=64).write_coco(folder / split, folder / f"{split}.json")
    return folder


def names(data: AutoDataset) -> list[str]:
    return [data.records.file_name(i) for i in range(len(data))]


def test_a_val_that_is_not_there_is_made_of_train(shapes: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = names(AutoDataset(root=str(shapes), split="train"))
    with caplog.at_level(logging.INFO, logger="detkit"):
        train, val = (AutoDataset(root=str(shapes), split=split, val=0.25) for split in ("train", "val"))
    assert sorted(names(train) + names(val)) == sorted(everything)
    assert len(val) == 5
    assert train.classes == val.classes
    assert "there is no val, so val is 5 of 20 images, by chance" in caplog.text
    other = AutoDataset(root=str(shapes), split="val", val=0.25, split_seed=1)
    assert names(other) != names(val)
    assert names(AutoDataset(root=str(shapes), split="val", val=0.25)) == names(val)
    assert len(AutoDataset(root=str(shapes), split="test", val=0.25, test=0.5)) == 3  # that of the data


def test_a_split_that_is_there_stays_whole(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "set")
    shutil.copytree(shapes / "test", tmp_path / "set/val")
    shutil.copy(shapes / "test.json", tmp_path / "set/val.json")
    assert len(AutoDataset(root=str(tmp_path / "set"), split="train", val=0.25)) == 20
    assert len(AutoDataset(root=str(tmp_path / "set"), split="val", val=0.25)) == 3


def test_a_made_split_stays_when_images_are_added(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "set")
    lists = str(tmp_path / "lists")
    before = names(AutoDataset(root=str(tmp_path / "set"), split="val", val=0.25, lists=lists))
    assert (tmp_path / "lists/val.txt").read_text().split() == before
    ShapesDataset(num_images=30, size=64).write_coco(tmp_path / "set/train", tmp_path / "set/train.json")
    assert names(AutoDataset(root=str(tmp_path / "set"), split="val", val=0.25, lists=lists)) == before
    assert len(AutoDataset(root=str(tmp_path / "set"), split="val", val=0.25)) != len(before)


def test_splits_go_by_any_of_their_names(shapes: Path, refuses: Refuses) -> None:
    for name in ("test", "testing", "Test"):
        assert len(AutoDataset(root=str(shapes), split=name)) == 3
    for split in ("val", None):
        with refuses(ValueError):
            AutoDataset(root=str(shapes), split=split)


def test_options_of_images_reach_the_reader(shapes: Path, refuses: Refuses) -> None:
    for val in (None, 0.25):
        data = AutoDataset(root=str(shapes), split="train", val=val)
        data.image_options = ImageOptions(max_megapixels=0.001)
        with refuses(ValueError):
            data.load_image(0)


def test_auto_is_its_name_in_python(shapes: Path) -> None:
    assert len(DATASETS.build({"type": "auto", "root": str(shapes), "split": "test"})) == 3


def test_other_formats_of_the_same_boxes_are_named(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "set")
    (tmp_path / "set/a.xml").write_text("<annotation><object/></annotation>")
    found = find_data(tmp_path / "set")
    assert found.format == "COCO JSON"
    assert found.notes == (
        "also found: Pascal VOC, because of 1 XML file with the root <annotation>, as a.xml; not read",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.csv", "photo,a,b,c,d,kind\nx.jpg,1,2,3,4,cat\n"),
        ("a.json", '[{"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4]}]'),
        ("a.xml", "<dataset/>"),
        ("set.zip", "PK"),
        ("set.tar", "PK"),
        ("broken.json", "{"),
        ("script.py", "import a, b, c, d\n"),
    ],
)
def test_what_a_folder_holds_instead_is_told(tmp_path: Path, refuses: Refuses, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for place in (tmp_path, tmp_path / name):
        with refuses(ValueError):
            find_data(place)


def test_the_folder_of_a_run_is_told(tmp_path: Path, refuses: Refuses) -> None:
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / name).touch()
    with refuses(ValueError):
        find_data(tmp_path)


def test_files_that_are_not_looked_at_are_told(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not find_data(shapes).notes
    monkeypatch.setattr("detkit.data.datasets.found.LOOKED_AT", 5)
    assert find_data(shapes).notes == (
        "only the first 5 files were looked at: name the file or folder of a split instead",
    )


def test_what_is_not_read_is_logged(shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(shapes, tmp_path / "set")
    (tmp_path / "set/a.xml").write_text("<annotation><object/></annotation>")
    with caplog.at_level(logging.INFO, logger="detkit"):
        AutoDataset(root=str(tmp_path / "set"), split="train")
    assert "also found: Pascal VOC" in caplog.text


def test_lists_that_are_read_are_not_by_chance(shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    AutoDataset(root=str(shapes), split="val", val=0.25, lists=str(tmp_path))
    with caplog.at_level(logging.INFO, logger="detkit"):
        assert len(AutoDataset(root=str(shapes), split="val", val=0.5, lists=str(tmp_path))) == 5
    assert f"val is 5 of 20 images, as the lists in {tmp_path} say" in caplog.text
    assert "chance" not in caplog.text


def test_trainval_is_train_where_there_is_neither_train_nor_val(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "set")
    (tmp_path / "set/train.json").rename(tmp_path / "set/instances_trainval2017.json")
    found = find_data(tmp_path / "set")
    assert list(found.splits) == ["train", "test"]
    assert found.notes == ("trainval2017 is read as train",)
    shutil.copy(tmp_path / "set/test.json", tmp_path / "set/val.json")
    assert list(find_data(tmp_path / "set").splits) == ["val", "test", "trainval2017"]


def test_a_list_called_trainval_keeps_its_name_too(tmp_path: Path) -> None:
    for name in ("trainval", "test"):
        image = tmp_path / f"JPEGImages/{name}.png"
        image.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(image)
        for file, text in (
            (f"ImageSets/Main/{name}.txt", f"{name}\n"),
            (f"Annotations/{name}.xml", "<annotation><object><name>cat</name><bndbox><xmin>5</xmin><ymin>6</ymin>"
             "<xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"),
        ):  # fmt: skip
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
    assert [names(AutoDataset(root=str(tmp_path), split=s)) for s in ("train", "trainval")] == [["trainval.png"]] * 2
