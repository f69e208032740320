"""Lists of dicts: Detectron2's, torchvision's, Hugging Face's metadata, pictures in memory, what is refused."""

from __future__ import annotations

import json
import pickle
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.data.datasets import entries
from detkit.data.datasets.auto import find_data
from detkit.data.datasets.entries import MOST_FILES, beginning
from detkit.data.datasets.found import Place
from detkit.data.datasets.listed import ListDataset
from detkit.data.datasets.problems import NUMBERED, SUSPECT
from detkit.datasets import load
from detkit.registry import DATASETS
from tests.refusals import Refuses


class BoxMode(IntEnum):
    """As Detectron2 numbers them."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    return tmp_path


def boxes(data: ListDataset, index: int = 0) -> list[Any]:
    a = data.records.annotation(index)
    rows = zip(a.boxes.tolist(), a.labels.tolist(), a.is_ignore.tolist(), strict=True)
    return [(data.classes.names[k], [round(v, 3) for v in b], ignore) for b, k, ignore in rows]


def item(box: Any, mode: Any, **more: Any) -> dict[str, Any]:
    return {"bbox": box, "bbox_mode": mode, "category_id": 0, **more}


def test_detectron2_dicts_in_every_mode(root: Path) -> None:
    entry = {
        "file_name": str(root / "a.jpg"), "height": 40, "width": 60, "image_id": 31,
        "annotations": [
            item([5, 6, 30, 35], BoxMode.XYXY_ABS),
            item([5, 6, 25, 29], BoxMode.XYWH_ABS, category_id=1, iscrowd=1),
            item([0.1, 0.2, 0.6, 0.6], BoxMode.XYXY_REL),
            item([0.1, 0.2, 0.5, 0.4], "BoxMode.XYWH_REL"),
            item([30, 20, 20, 10, 90], BoxMode.XYWHA_ABS),
        ],
    }  # fmt: skip
    data = ListDataset(entries=[entry, {"file_name": str(root / "b.jpg"), "image_id": 4, "annotations": []}],
                       names=["dog", "cat"])  # fmt: skip
    assert data.classes.names == ("dog", "cat")
    assert boxes(data) == [
        ("dog", [5, 6, 30, 35], False),
        ("cat", [5, 6, 30, 35], True),
        ("dog", [6, 8, 36, 24], False),
        ("dog", [6, 8, 36, 24], False),
        ("dog", [25, 10, 35, 30], False),
    ]
    assert data.records.image_ids.tolist() == [31, 4]
    assert boxes(data, 1) == []


def test_torchvision_targets(root: Path) -> None:
    target = {
        "image": "a.jpg", "boxes": torch.tensor([[5.0, 6.0, 30.0, 35.0], [1.0, 2.0, 3.0, 4.0]]),
        "labels": torch.tensor([2, 1]), "image_id": torch.tensor([9]), "iscrowd": torch.tensor([0, 1]),
        "area": torch.tensor([700.0, 3.5]),
    }  # fmt: skip
    data = ListDataset(entries=[target], images=str(root), names=["background", "dog", "cat"])
    assert boxes(data) == [("cat", [5, 6, 30, 35], False), ("dog", [1, 2, 3, 4], True)]
    assert data.records.annotation(0).area.tolist() == [700, 3.5]
    numbered = ListDataset(entries=[target], images=str(root))
    assert numbered.classes.names == ("1", "2")
    assert numbered.problems.count(NUMBERED) == 2


def test_numbers_as_classes_are_in_their_order(root: Path) -> None:
    entry = {"path": "a.jpg", "boxes": [[1, 1, 9, 9]] * 4, "labels": [10, 9, 2, 100]}
    assert ListDataset(entries=[entry], images=str(root)).classes.names == ("2", "9", "10", "100")


@pytest.mark.parametrize("name", ["metadata.jsonl", "list.json"])
def test_a_file_of_hugging_face_is_found(root: Path, name: str) -> None:
    entries = [
        {"file_name": "a.jpg", "objects": {"bbox": [[5.25, 6, 25, 29]], "categories": ["cat"]}},
        {"file_name": "b.jpg", "objects": {"bbox": [], "categories": []}},
    ]
    lines = "\n".join(map(json.dumps, entries)) if name.endswith("l") else json.dumps(entries)
    (root / name).write_text(lines)
    found = find_data(root)
    assert (found.format, list(found.splits)) == ("a list of dicts", ["all"])
    data = DATASETS.build(found.splits["all"])
    assert [boxes(data, i) for i in range(2)] == [[("cat", [5.25, 6, 30.25, 35], False)], []]
    assert data.records.truth.boxes.tolist() == [[5.25, 6, 25, 29]]
    assert find_data(root / name).format == "a list of dicts"


def test_one_notation_for_all_boxes_of_an_image_is_read(root: Path) -> None:
    objects = {"bbox": [[5, 6, 30, 35], [1, 2, 9, 8]], "category": ["cat", "cat"], "bbox_mode": 0}
    data = ListDataset(entries=[{"file_name": "a.jpg", "objects": objects}], images=str(root))
    assert [box for _, box, _ in boxes(data)] == [[5, 6, 30, 35], [1, 2, 9, 8]]


def test_notation_and_fractions_can_be_set(root: Path) -> None:
    entry = {"filename": "a.jpg", "boxes": [[0.5, 0.5, 0.5, 0.25]], "labels": ["cat"]}
    data = ListDataset(entries=[entry], images=str(root), box_format="cxcywh", relative=True)
    assert boxes(data) == [("cat", [15, 15, 45, 25], False)]  # the image's own size


def test_pictures_in_memory(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    entries: list[Any] = [
        {"image": pixels, "boxes": np.array([[5, 6, 30, 35]]), "labels": ["cat"]},
        {"image": Image.fromarray(pixels[:20]), "boxes": [[1, 2, 99, 9]], "labels": ["dog"]},
        {"image": str(root / "a.jpg"), "boxes": [], "labels": []},
    ]
    data = pickle.loads(pickle.dumps(ListDataset(entries=entries)))
    assert np.array_equal(np.asarray(data.load_image(0)), pixels)
    assert np.array_equal(np.asarray(data.load_image(1)), pixels[:20])
    assert data.load_image(2).size == (60, 40)
    assert [boxes(data, i) for i in range(3)] == [
        [("cat", [5, 6, 30, 35], False)], [("dog", [1, 2, 60, 9], False)], [],
    ]  # fmt: skip


def test_corners_under_the_key_of_another_notation_are_told(root: Path) -> None:
    entry = {
        "file_name": "a.jpg",
        "objects": {"bbox": [[20, 10, 50, 38]], "category": ["cat"]},
        "height": 40,
        "width": 60,
    }
    assert ListDataset(entries=[entry], images=str(root)).problems.count(SUSPECT) == 1


BROKEN: dict[str, Any] = {
    "no list": [],
    "no image": [{"boxes": [], "labels": []}],
    "no boxes": [{"file_name": "a.jpg"}],
    "no labels": [{"file_name": "a.jpg", "boxes": [[1, 2, 3, 4]]}],
    "uneven": [{"file_name": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": ["cat", "dog"]}],
    "three numbers": [{"file_name": "a.jpg", "boxes": [[1, 2, 3]], "labels": ["cat"]}],
    "one box alone": [{"file_name": "a.jpg", "boxes": [1, 2, 3, 4], "labels": ["cat"] * 4}],
    "words": [{"file_name": "a.jpg", "boxes": [[1, 2, 3, "x"]], "labels": ["cat"]}],
    "no mode": [{"file_name": "a.jpg", "annotations": [{"bbox": [1, 2, 3, 4], "category_id": 0}]}],
    "unknown mode": [{"file_name": "a.jpg", "annotations": [item([1, 2, 3, 4], 7)]}],
    "no class": [{"file_name": "a.jpg", "annotations": [item([1, 2, 3, 4], 0, category_id=None)]}],
    "half a class": [{"file_name": "a.jpg", "annotations": [item([1, 2, 3, 4], 0, category_id=0.5)]}],
    "a class too many": [{"file_name": "a.jpg", "annotations": [item([1, 2, 3, 4], 0, category_id=3)]}],
    "twice": [{"file_name": "a.jpg", "boxes": []}] * 2,
    "a tensor": [{"image": torch.zeros(3, 4, 5), "boxes": []}],
    "a list for a mode": [{"file_name": "a.jpg", "annotations": [item([1, 2, 3, 4], [0])]}],
    "no dict": [5],
    "no objects": [{"file_name": "a.jpg", "objects": 3}],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_entry_is_named(refuses: Refuses, root: Path, name: str) -> None:
    with refuses(ValueError):
        ListDataset(entries=BROKEN[name], images=str(root), names=["cat"])


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "[", '{"file_name": "a.jpg", "boxes": []}\n{', "a,b,c,d\n1,2,3,4\n", "3"]
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_broken_file_is_named(refuses: Refuses, root: Path, text: str, suffix: str) -> None:
    (root / f"list{suffix}").write_text(text)
    with refuses(ValueError):
        ListDataset(annotations=str(root / f"list{suffix}"))


def test_a_list_is_loaded_in_python(refuses: Refuses, root: Path) -> None:
    entries = [{"file_name": "a.jpg", "boxes": [[5, 6, 30, 35]], "labels": ["cat"]}]
    data = load(entries, images=root, class_names=["dog", "cat"])
    assert data.classes.names == ("dog", "cat")
    assert data.records.path(0) == str(root / "a.jpg")
    with refuses(ValueError):
        load(entries, images=root, split="train")


def test_missing_files_are_named(refuses: Refuses, root: Path) -> None:
    with refuses(ValueError):
        ListDataset()
    with refuses(FileNotFoundError):
        ListDataset(annotations=str(root / "none.jsonl"))
    with refuses(FileNotFoundError):
        ListDataset(entries=[{"file_name": str(root / "none.jpg"), "boxes": [[1, 2, 3, 4]], "labels": ["cat"]}])


def test_files_of_other_tools_are_not_all_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"label": "cat", "points": [[5, 6], [20, 30]], "shape_type": "rectangle"}
    for number in range(MOST_FILES + 10):
        content = {"version": "5", "shapes": [shape], "imagePath": f"{number}.jpg", "objects": [{"path": "x"}]}
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    looked: list[Path] = []

    def look(path: Path) -> str:
        looked.append(path)
        return beginning(path)

    monkeypatch.setattr(entries, "beginning", look)
    assert ListDataset.find(Place(tmp_path)) is None
    assert len(set(looked)) == MOST_FILES
