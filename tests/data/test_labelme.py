"""LabelMe folders: shapes by hand, groups, embedded images, what is refused."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.labelme import NO_GROUPS, LabelMeDataset
from detkit.data.datasets.problems import DROPPED, FROM_OUTLINE, JOINED, NO_BOX, OTHER_FILE, UNLISTED
from detkit.registry import DATASETS
from tests.refusals import Refuses


def shape(label: Any, kind: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, "flags": {}, "group_id": None, **more}


def write(folder: Path, name: str, shapes: list[Any], image: bool = True, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if image:
        Image.new("RGB", (60, 40), (9, 99, 200)).save(folder / f"{name}.png")
    content = {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None,
               "imageHeight": 40, "imageWidth": 60, **more}  # fmt: skip
    file = folder / f"{name}.json"
    file.write_text(json.dumps(content))
    return file


CAT = shape("cat", "rectangle", (30, 35), (5, 6))


def boxes(data: LabelMeDataset, index: int = 0) -> list[Any]:
    a = data.records.annotation(index)
    rows = zip(a.boxes.tolist(), a.labels.tolist(), a.is_ignore.tolist(), strict=True)
    return [(data.classes.names[k], [round(v, 3) for v in b], ignore) for b, k, ignore in rows]


def test_each_kind_of_shape_gives_its_box(tmp_path: Path) -> None:
    write(
        tmp_path, "a",
        [
            CAT,  # its corners in any order
            shape("dog", "polygon", (10, 10), (20, 5), (15, 30)),
            shape("dog", "circle", (30, 20), (33, 24)),  # of radius 5
            shape("cat", "rectangle", (1, 1), (9, 1), (9, 8), (1, 8), difficult=True),  # as X-AnyLabeling writes it
            shape("cat", "mask", (3, 4), (8, 9), mask="iVBOR"),
            shape("dog", "rotation", (10, 0), (20, 10), (10, 20), (0, 10)),
            shape("dog", "point", (3, 3)),
            shape("dog", "linestrip", (3, 3), (9, 9)),
        ],
    )  # fmt: skip
    data = LabelMeDataset(root=str(tmp_path))
    assert data.classes.names == ("cat", "dog")
    assert boxes(data) == [
        ("cat", [5, 6, 30, 35], False),
        ("dog", [10, 5, 20, 30], False),
        ("dog", [25, 15, 35, 25], False),
        ("cat", [1, 1, 9, 8], True),
        ("cat", [3, 4, 8, 9], False),
        ("dog", [0, 0, 20, 20], False),
    ]
    assert (data.problems.count(FROM_OUTLINE), data.problems.count(NO_BOX)) == (4, 2)


def test_shapes_of_a_group_are_one_object(tmp_path: Path) -> None:
    shapes = [
        shape("cat", "polygon", (0, 0), (5, 0), (5, 9), group_id=1),
        shape("cat", "polygon", (20, 10), (30, 10), (30, 39), group_id=1),
        shape("dog", "rectangle", (1, 1), (4, 4), group_id=1),
        shape("cat", "rectangle", (2, 2), (7, 7)),
    ]
    write(tmp_path, "a", shapes)
    joined = LabelMeDataset(root=str(tmp_path))
    assert [(name, box) for name, box, _ in boxes(joined)] == [
        ("cat", [0, 0, 30, 39]), ("dog", [1, 1, 4, 4]), ("cat", [2, 2, 7, 7]),
    ]  # fmt: skip
    assert joined.problems.count(JOINED) == 1
    assert len(boxes(LabelMeDataset(root=str(tmp_path), join_groups=False))) == 4


def test_a_group_0_that_every_shape_has_is_none(tmp_path: Path) -> None:
    shapes = [shape("cat", "rectangle", (x, 0), (x + 5, 9), group_id=0) for x in (0, 20)]
    write(tmp_path, "a", shapes)
    data = LabelMeDataset(root=str(tmp_path))
    assert [box for _, box, _ in boxes(data)] == [[0, 0, 5, 9], [20, 0, 25, 9]]
    assert (data.problems.count(JOINED), data.problems.count(NO_GROUPS)) == (0, 2)
    write(tmp_path, "b", [CAT])
    data = LabelMeDataset(root=str(tmp_path))
    assert boxes(data)[0][1] == [0, 0, 25, 9]
    assert (data.problems.count(JOINED), data.problems.count(NO_GROUPS)) == (1, 0)


@pytest.mark.parametrize("written", ["../pictures/a.png", "..\\pictures\\a.png", "/home/me/a.png", "C:\\me\\a.png"])
def test_the_image_is_found_wherever_the_labeller_had_it(tmp_path: Path, written: str) -> None:
    write(tmp_path / "labels", "a", [CAT], imagePath=written)
    (tmp_path / "pictures").mkdir()
    shutil.move(tmp_path / "labels/a.png", tmp_path / "pictures/a.png")
    assert LabelMeDataset(root=str(tmp_path)).records.path(0) == str(tmp_path / "pictures/a.png")
    by_key = LabelMeDataset(root=str(tmp_path / "labels"), images=str(tmp_path / "pictures"))
    assert by_key.records.path(0) == str(tmp_path / "pictures/a.png")


def test_an_image_that_only_the_json_holds_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    write(tmp_path, "a", [CAT], image=False, imageData=base64.b64encode(content.getvalue()).decode())
    data = LabelMeDataset(root=str(tmp_path))
    assert np.array_equal(np.asarray(data.load_image(0)), pixels)
    assert data.image_size(0) == (40, 60)
    assert not data.reads_files


def test_what_is_no_annotation_is_counted(tmp_path: Path) -> None:
    write(tmp_path, "a", [])
    (tmp_path / "other.json").write_text('{"images": [], "annotations": [], "categories": []}')
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    write(tmp_path, "c", [CAT])
    data = LabelMeDataset(root=str(tmp_path))
    assert [boxes(data, i) for i in range(2)] == [[], [("cat", [5, 6, 30, 35], False)]]
    assert (data.problems.count(OTHER_FILE), data.problems.count(UNLISTED)) == (1, 1)


BROKEN: dict[str, Any] = {
    "no label": [shape(None, "rectangle", (1, 2), (3, 4))],
    "one point": [shape("cat", "rectangle", (1, 2))],
    "words for points": [shape("cat", "rectangle", (1, 2), ("a", 4))],  # type: ignore[arg-type]
    "no points": [shape("cat", "polygon")],
    "unknown kind": [shape("cat", "spiral", (1, 2), (3, 4))],
    "a text": ["cat"],
    "a list for a kind": [shape("cat", ["rectangle"], (1, 2), (3, 4))],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_shape_is_named(refuses: Refuses, tmp_path: Path, name: str) -> None:
    write(tmp_path, "a", BROKEN[name])
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))


def test_a_broken_folder_is_named(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        LabelMeDataset(root=str(tmp_path / "none"))
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))
    write(tmp_path, "a", [CAT], image=False)
    with refuses(FileNotFoundError):
        LabelMeDataset(root=str(tmp_path))
    write(tmp_path, "a", [CAT], image=False, imageData="no image")
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))
    write(tmp_path, "a", [CAT])
    write(tmp_path, "b", [CAT], imagePath="a.png")
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))
    (tmp_path / "b.json").write_text('{"shapes": [')
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png"])
def test_a_name_that_no_file_can_have(refuses: Refuses, tmp_path: Path, name: str) -> None:
    write(tmp_path, "a", [CAT], image=False, imagePath=name)
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))
    write(tmp_path, "a", [CAT], image=False, imagePath="a" * 5000)
    with pytest.raises(FileNotFoundError, match="1 of 1 image is missing"):
        LabelMeDataset(root=str(tmp_path))


def test_numbers_that_are_none_give_no_box(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    shapes = [shape("cat", "polygon", (1, 2), (nan, 3), (5, 9)), shape("cat", "circle", (1, 2), (inf, 3)), CAT]
    write(tmp_path, "a", shapes, imageHeight=inf)
    data = LabelMeDataset(root=str(tmp_path))
    assert boxes(data) == [("cat", [5, 6, 30, 35], False)]
    assert data.problems.count(DROPPED) == 2


def test_an_image_name_in_two_folders_is_not_guessed(refuses: Refuses, tmp_path: Path) -> None:
    write(tmp_path / "one", "a", [CAT])
    write(tmp_path / "two", "a", [CAT])
    write(tmp_path, "a", [CAT], image=False, imagePath="/elsewhere/a.png")
    with refuses(ValueError):
        LabelMeDataset(root=str(tmp_path))


def test_folders_of_splits_are_found(tmp_path: Path) -> None:
    write(tmp_path / "train", "a", [CAT])
    write(tmp_path / "valid/deeper", "b", [CAT])
    found = find_data(tmp_path)
    assert found.format == "LabelMe JSON"
    assert sorted(found.splits) == ["train", "val"]
    assert [len(DATASETS.build(node)) for node in found.splits.values()] == [1, 1]
    write(tmp_path, "c", [CAT])
    assert list(find_data(tmp_path).splits) == ["all"]


def test_folders_of_splits_may_lie_deeper_and_images_beside_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"labels/{split}", "a", [CAT])
        (tmp_path / f"images/{split}").mkdir(parents=True)
        shutil.move(tmp_path / f"labels/{split}/a.png", tmp_path / f"images/{split}/a.png")
    data = {split: DATASETS.build(node) for split, node in find_data(tmp_path).splits.items()}
    assert {split: d.records.path(0) for split, d in data.items()} == {
        split: f"{tmp_path}/images/{split}/a.png" for split in ("train", "val")
    }
