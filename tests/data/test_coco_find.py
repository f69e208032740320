"""COCO files as tools write them: found in a folder with their images, and read."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.auto import AutoDataset, find_data
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.images import ImageOptions
from detkit.data.datasets.problems import IN_FOLDER
from tests.refusals import Refuses


def coco(*names: str, **more: Any) -> dict[str, Any]:
    """A file of some images, each with one box as large as its number says."""
    images = [{"id": i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names, start=1)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 10 + i, 20], "iscrowd": 0}
        for i in range(1, len(names) + 1)
    ]
    return {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": boxes, **more}


def write(root: Path, file: str, content: Any, *images: str, encoding: str = "utf-8") -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content), encoding=encoding)
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(root / image)


LAYOUTS = {
    "roboflow": {
        "train": ("train/_annotations.coco.json", "a.jpg", "train/a.jpg"),
        "val": ("valid/_annotations.coco.json", "a.jpg", "valid/a.jpg"),
        "test": ("test/_annotations.coco.json", "a.jpg", "test/a.jpg"),
    },
    "coco": {
        "train": ("annotations/instances_train2017.json", "a.jpg", "train2017/a.jpg"),
        "val": ("annotations/instances_val2017.json", "a.jpg", "val2017/a.jpg"),
    },
    "cvat": {"all": ("annotations/instances_default.json", "a.jpg", "images/a.jpg")},
    "cvat, with folders": {"train": ("annotations/instances_Train.json", "sub/a.jpg", "images/Train/sub/a.jpg")},
    "label studio": {"all": ("result.json", "images/ab12-a.jpg", "images/ab12-a.jpg")},
    "label studio on windows": {"all": ("result.json", "images\\ab12-a.jpg", "images/ab12-a.jpg")},
    "via": {"all": ("via_export_coco.json", "a.jpg", "a.jpg")},
    "anywhere": {"all": ("labels/deep/all.json", "a.jpg", "pictures/of/march/a.jpg")},
    "split and images": {
        "train": ("train/labels.json", "a.jpg", "train/data/a.jpg"),
        "val": ("validation/labels.json", "a.jpg", "validation/data/a.jpg"),
    },
}


@pytest.mark.parametrize("name", ["val", "valid", "instances_val2017"])
@pytest.mark.parametrize("folder", ["images/val", "val"])
def test_the_folder_of_a_split_goes_before_that_of_all(tmp_path: Path, name: str, folder: str) -> None:
    for place in ("", "annotations/"):
        write(tmp_path, f"{place}{name}.json", coco("a.jpg"), "images/a.jpg", f"{folder}/a.jpg")
        found = find_data(tmp_path / f"{place}{name}.json").splits["val"]
        assert found["images"] == str(tmp_path / folder)


def test_several_files_of_a_split_are_told(tmp_path: Path) -> None:
    for name in ("train1", "train2", "val"):
        write(tmp_path, f"{name}.json", coco("a.jpg"), "images/a.jpg")
    found = find_data(tmp_path)
    assert list(found.splits) == ["val", "train1", "train2"]
    assert found.notes == ("several are of one split, so each is its own: train1, train2",)


def test_a_folder_that_has_some_of_the_images_is_taken(tmp_path: Path, refuses: Refuses) -> None:
    write(tmp_path, "a.json", coco("a.jpg", "b.jpg"), "images/a.jpg")
    with refuses(FileNotFoundError):
        AutoDataset(root=str(tmp_path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_of_a_tool_are_found_with_their_images(tmp_path: Path, layout: str) -> None:
    for file, name, image in LAYOUTS[layout].values():
        write(tmp_path, file, coco(name), image)
    found = find_data(tmp_path)
    assert found.format == "COCO JSON"
    assert set(found.splits) == set(LAYOUTS[layout])
    assert not found.notes
    for split, (_, _, image) in LAYOUTS[layout].items():
        data = AutoDataset(root=str(tmp_path), split=split)
        assert [data.records.path(i) for i in range(len(data))] == [str(tmp_path / image)]
        assert not data.problems


def test_names_of_another_machine_lead_to_the_images_beside(tmp_path: Path) -> None:
    names = ("../../label-studio/data/media/upload/1/ab-a.jpg", "C:\\photos\\b.jpg", "/data/local-files/c.jpg")
    write(tmp_path, "result.json", coco(*names), "images/ab-a.jpg", "images/b.jpg", "images/c.jpg")
    data = AutoDataset(root=str(tmp_path))
    assert [data.records.file_name(i) for i in range(3)] == ["ab-a.jpg", "b.jpg", "c.jpg"]
    assert data.problems.count(IN_FOLDER) == 3
    data.check_paths()


def test_a_last_name_that_two_images_have_leads_nowhere(refuses: Refuses, tmp_path: Path) -> None:
    write(tmp_path, "a.json", coco("/x/a.jpg", "/y/a.jpg"), "a.jpg")
    with refuses(FileNotFoundError):
        AutoDataset(root=str(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_any_unicode_is_found(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, "a.json", coco("größe.jpg"), "größe.jpg", encoding=encoding)
    assert AutoDataset(root=str(tmp_path)).records.file_name(0) == "größe.jpg"


def test_files_that_are_no_instances_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_val2017.json", coco("a.jpg"), "val2017/a.jpg")
    write(tmp_path, "annotations/person_keypoints_val2017.json", coco("a.jpg"))
    panoptic = [{"image_id": 1, "file_name": "a.png", "segments_info": []}]
    write(tmp_path, "annotations/panoptic_val2017.json", coco("a.jpg", annotations=panoptic))
    write(tmp_path, "annotations/captions_val2017.json", {"images": [], "annotations": [{"caption": "a cat"}]})
    write(tmp_path, "package.json", {"name": "images"})
    assert list(find_data(tmp_path).splits) == ["val"]
    (tmp_path / "annotations/instances_val2017.json").unlink()
    assert find_data(tmp_path).splits["val"]["annotations"].endswith("person_keypoints_val2017.json")


def test_files_of_one_split_have_their_own_names(tmp_path: Path) -> None:
    write(tmp_path, "cats_train.json", coco("a.jpg"), "a.jpg")
    write(tmp_path, "dogs_train.json", coco("a.jpg"))
    assert list(find_data(tmp_path).splits) == ["cats_train", "dogs_train"]


def test_images_that_are_not_near_are_told(refuses: Refuses, tmp_path: Path) -> None:
    write(tmp_path, "a.json", coco("a.jpg"))
    assert find_data(tmp_path).notes == ("the images of a.json (a.jpg) are not near it",)
    with refuses(FileNotFoundError):
        AutoDataset(root=str(tmp_path))


def test_what_a_json_file_is_instead_is_named(refuses: Refuses, tmp_path: Path) -> None:
    contents: list[dict[str, object]] = [{"type": "FeatureCollection", "features": []}, {"images": []}]
    for content in contents:
        write(tmp_path, "a.json", content)
        with refuses(ValueError):
            find_data(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["../secret/a.jpg", "{root}/secret/a.jpg", "sub/../../secret/a.jpg"])
def test_a_path_out_of_the_data_is_refused_unless_it_is_allowed(refuses: Refuses, tmp_path: Path, name: str) -> None:
    name = name.format(root=tmp_path)
    write(tmp_path, "data/a.json", coco(name, "sub/b.jpg"), "secret/a.jpg", "data/sub/b.jpg")
    data = CocoDataset(annotations=str(tmp_path / "data/a.json"), images=str(tmp_path / "data"))
    for read in (data.check_paths, lambda: data.load_image(0), lambda: data.image_size(0)):
        with refuses(ValueError):
            read()
    assert data.load_image(1).size == (60, 40)
    data.image_options = ImageOptions(outside=True)
    data.check_paths()
    assert data.load_image(0).size == (60, 40)


def test_a_linked_folder_and_an_absolute_path_inside_are_no_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "data/a.json", coco(f"{tmp_path}/data/images/a.jpg", "linked/b.jpg"), "data/images/a.jpg")
    write(tmp_path, "elsewhere/x.json", {}, "elsewhere/b.jpg")
    (tmp_path / "data/images/linked").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "data")
    for images in (str(tmp_path / "data/images"), "images", "../data/images"):
        data = CocoDataset(annotations="a.json", images=images)
        data.check_paths()
        assert [data.load_image(i).size for i in range(2)] == [(60, 40)] * 2


def test_auto_says_what_it_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "instances_val.json", coco("a.jpg"), "a.jpg")
    with caplog.at_level(logging.INFO, logger="detkit"):
        AutoDataset(root=str(tmp_path))
    why = "COCO JSON, because of the lists images, annotations and categories in instances_val.json"
    assert f"{tmp_path}: {why}" in caplog.text
