"""What is known of the images before a training begins."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.config import load_config
from detkit.data.build import build_dataset, open_images, usable_dataset, warn_of_shared_images
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.scan import scan_images
from tests.refusals import Refuses

SHAPES = Path(__file__).parents[2] / "configs/quickstart/shapes.yaml"


def load(folder: Any, *overrides: str, split: str = "val") -> DetectionDataset | None:
    return usable_dataset(load_config(folder.config, overrides), split, early=True)


def test_whole_images_pass_and_the_set_is_the_one_that_was_built(folder: Any) -> None:
    data = load(folder)
    assert len(data) == 3
    assert data.left_out == {}
    assert data.summary() == build_dataset(load_config(folder.config), "val").summary()


def test_a_damaged_image_is_an_error_that_names_it_and_the_ways_out(refuses: Refuses, folder: Any) -> None:
    folder.damage("val", 1)
    with refuses(ValueError) as told:
        load(folder)
    assert "data.images.bad_images=skip" in str(told.value)
    assert "=repair" in str(told.value)


def test_skip_leaves_it_out_with_its_boxes_and_counts_it(folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder.damage("val", 1)
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = load(folder, "data.images.bad_images=skip")
    assert data.records.image_ids.tolist() == [1, 3]
    assert list(data.left_out) == [str(folder.file("val", 1))]
    assert "left out 1 of 3 images (data.images.bad_images: skip)" in caplog.text
    assert "val1.jpg" in caplog.text
    assert "1 bad image left out: val1.jpg" in data.summary()
    assert data.content_hash() == build_dataset(load_config(folder.config), "val").content_hash()
    assert np.asarray(data.checked_image(1)).shape == (64, 96, 3)


def test_repair_keeps_it_and_says_so(refuses: Refuses, folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder.damage("val", 1, lost=600)
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = load(folder, "data.images.bad_images=repair")
    assert len(data) == 3
    assert "repaired (data.images.bad_images: repair)" in caplog.text
    assert "val1.jpg" in caplog.text
    assert data.checked_image(1).size == (96, 64)
    folder.file("val", 2).write_bytes(b"nothing")
    with refuses(ValueError):
        load(folder, "data.images.bad_images=repair")


def test_an_image_of_another_size_is_bad_as_well(refuses: Refuses, folder: Any) -> None:
    folder.file("val", 0).write_bytes(folder.file("val", 1).read_bytes())
    from PIL import Image

    Image.new("RGB", (30, 20)).save(folder.file("val", 0))
    with refuses(ValueError):
        load(folder)
    assert len(load(folder, "data.images.bad_images=skip")) == 2


def test_no_image_at_all_is_an_error_under_every_policy(refuses: Refuses, folder: Any) -> None:
    for i in range(3):
        folder.file("val", i).write_bytes(b"nothing")
    for policy in ("error", "skip", "repair"):
        with refuses(ValueError):
            load(folder, f"data.images.bad_images={policy}")


def test_an_image_over_the_limit_is_refused_with_the_key(refuses: Refuses, folder: Any) -> None:
    with refuses(ValueError):
        load(folder, "data.images.max_megapixels=0.001")
    assert len(load(folder, "data.images.max_megapixels=0.01")) == 3


def test_out_of_time_only_headers_are_read(folder: Any) -> None:
    folder.damage("train", 0)
    folder.file("train", 1).write_bytes(b"nothing")
    data = build_dataset(load_config(folder.config), "train")
    found = scan_images(data, range(3), seconds=0)
    assert (found.decoded, found.headers) == (0, 3)
    assert list(found.bad) == [1], "the header of a truncated image is whole"
    assert sorted(scan_images(data, range(3)).bad) == [0, 1]


def test_what_several_processes_find_is_put_together(folder: Any) -> None:
    folder.damage("val", 0)
    folder.damage("val", 1)
    config = load_config(folder.config, ["data.images.bad_images=skip"])
    whole = build_dataset(config, "val")
    parts = [scan_images(whole, range(rank, 3, 2)).to_json() for rank in range(2)]
    sets = [
        open_images(whole, "val", all_gather=lambda name, mine: parts, rank=rank, world_size=2) for rank in range(2)
    ]
    assert [s.records.image_ids.tolist() for s in sets] == [[3], [3]]
    assert parts[0]["bad"][0][0] == 0


def test_images_that_are_drawn_are_not_opened_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShapesDataset, "load_image", lambda self, index: pytest.fail("opened"))
    assert not ShapesDataset.reads_files
    config = load_config(SHAPES, ["data.val.dataset.num_images=2"])
    assert len(usable_dataset(config, "val", early=True)) == 2


def test_images_in_both_splits_are_told(folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(folder.config)
    train, val = (build_dataset(config, split) for split in ("train", "val"))
    assert warn_of_shared_images(train, val) is None
    assert "the validation split is the training split" in (warn_of_shared_images(train, train) or "")
    (folder.root / "val").rename(folder.root / "old")
    (folder.root / "val").symlink_to(folder.root / "train")
    text = (folder.root / "val.json").read_text()
    (folder.root / "val.json").write_text(text.replace("val0.jpg", "train0.jpg").replace("val1.jpg", "train2.jpg"))
    (folder.root / "train/val2.jpg").write_bytes((folder.root / "old/val2.jpg").read_bytes())
    val = build_dataset(load_config(folder.config), "val")
    assert "2 of 3 validation images are also training images" in (warn_of_shared_images(train, val) or "")
    assert "train0.jpg, train2.jpg" in caplog.text
    (folder.root / "train/val2.jpg").unlink()
    (folder.root / "train/val2.jpg").symlink_to("train1.jpg")
    val = build_dataset(load_config(folder.config), "val")
    assert "3 of 3 validation images are also training images" in (warn_of_shared_images(train, val) or "")
