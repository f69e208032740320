"""A clean copy has no fault that can be put right, and the input stays as it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from detkit.data.doctor.checkup import examine
from detkit.data.doctor.fix import write_clean
from detkit.data.doctor.subject import Subject
from detkit.registry import DATASETS
from tests.data.doctor.planted import HEIGHT, WIDTH, Planted


def tree(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def faulty(tmp_path: Path) -> Planted:
    data = Planted(tmp_path / "data")
    data.copy(("train", 3), ("val", 5))
    data.copy(("train", 8), ("train", 9))
    data.boxes["train"][10].append((1, 10, 10, 0, 20))
    data.boxes["train"][11].append(data.boxes["train"][11][0])
    data.boxes["train"][12][1] = (2, 78, 20, 25, 18)
    data.path("train", 13).write_bytes(data.path("train", 13).read_bytes()[:-200])
    data.sizes["train"][14] = (HEIGHT, WIDTH)
    data.write()
    return data


def test_what_can_be_put_right_is_and_the_input_stays(faulty: Planted, tmp_path: Path) -> None:
    subject = faulty.subject()
    before = tree(faulty.root)
    written, fixes = write_clean(subject, tmp_path / "out")
    assert tree(faulty.root) == before
    assert {what: len(places) for what, places in fixes.named.items()} == {
        "images that can't be read are left out": 1,
        "copies of validation or test images are left out of training": 1,
        "copies of an image of the same split are left out": 1,
        "stated sizes are replaced by those of the images": 1,
        "unusable boxes are left out": 1,
        "boxes are cut off at the edge of their image": 1,
        "repeated boxes are left out": 1,
    }
    again = Subject.of("out", {split: DATASETS.build(node) for split, node in written.nodes.items()})
    assert examine(again).cases == {}
    assert [len(split.dataset) for split in again] == [37, 32]


def test_boxes_that_were_right_stay_to_the_last_bit(faulty: Planted, tmp_path: Path) -> None:
    write_clean(faulty.subject(), tmp_path / "out")
    old, new = (json.loads((f / name).read_text()) for f, name in (
        (faulty.root, "val.json"), (tmp_path / "out", "annotations/instances_val.json")))  # fmt: skip
    assert [a["bbox"] for a in new["annotations"]] == [a["bbox"] for a in old["annotations"]]
    assert new["categories"] == old["categories"]
    swapped = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    entry = next(i for i in swapped["images"] if i["id"] == 15)
    boxes = [a["bbox"] for a in swapped["annotations"] if a["image_id"] == 15]
    assert (entry["width"], entry["height"]) == (WIDTH, HEIGHT)
    assert boxes == [list(box[1:]) for box in faulty.boxes["train"][14]]


def test_a_split_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    data = Planted(tmp_path / "data")
    data.write()
    (val,) = (split.dataset for split in data.subject() if split.name == "val")
    written, fixes = write_clean(Subject.of("data", {"train": val, "val": val}), tmp_path / "out")
    assert list(written.nodes) == ["val"]
    assert fixes.named["splits of which no image is left are not written"] == ["train"]
