"""Exports of Label Studio: regions in percent, which annotation counts, where the image is, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.label_studio import LabelStudioDataset
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, SEVERAL_ANNOTATORS, UNANNOTATED
from detkit.registry import DATASETS
from tests.refusals import Refuses


def result(kind: str, labels: Any = ("cat",), size: bool = True, **value: Any) -> dict[str, Any]:
    name = kind if kind.endswith("labels") else f"{kind}labels"
    stated = {"original_width": 60, "original_height": 40, "image_rotation": 0} if size else {}
    return {
        "id": "r1",
        "type": name,
        "from_name": "label",
        "to_name": "image",
        "value": {**value, name: labels},
        **stated,
    }


RECT = result("rectangle", x=10, y=20, width=50, height=40, rotation=0)
OTHER = result("rectangle", x=0, y=0, width=10, height=10)


def task(*annotations: Any, image: str = "/data/upload/1/0a1b2c3d-a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"image": image}, "annotations": list(annotations), "predictions": [], **more}


def annotation(*results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(results), "was_cancelled": False, "ground_truth": False, **more}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (60, 40)).save(tmp_path / "images" / name)
    return tmp_path


def read(root: Path, content: Any, **more: Any) -> LabelStudioDataset:
    (root / "export.json").write_text(json.dumps(content))
    return LabelStudioDataset(annotations=str(root / "export.json"), images=str(root / "images"), **more)


def boxes(data: LabelStudioDataset, index: int = 0) -> list[Any]:
    a = data.records.annotation(index)
    return [(data.classes.names[k], [round(v, 3) for v in b]) for b, k in zip(a.boxes.tolist(), a.labels, strict=True)]


def test_each_kind_of_region_gives_its_box(root: Path) -> None:
    results = [
        RECT,
        result("polygon", ["dog"], points=[[10, 10], [50, 20], [20, 75]]),
        result("ellipse", ["dog"], x=50, y=50, radiusX=10, radiusY=5, rotation=0),
        result("rectangle", ["cat", "dog"], x=50, y=25, width=20, height=10, rotation=90),
        result("keypoint", x=1, y=2, width=0.3),
        {"type": "choices", "value": {"choices": ["night"]}},
        {"type": "relation", "from_id": "r1", "to_id": "r2"},
    ]
    data = read(root, [task(annotation(*results))])
    assert boxes(data) == [
        ("cat", [6, 8, 36, 24]),
        ("dog", [6, 4, 30, 30]),
        ("dog", [24, 18, 36, 22]),
        ("cat", [26, 10, 30, 22]),  # 12x4 pixels turned about the top left corner (30, 10)
        ("dog", [26, 10, 30, 22]),
    ]
    assert (data.problems.count(FROM_OUTLINE), data.problems.count(NO_BOX)) == (3, 1)
    found = find_data(root)
    assert found.format == "Label Studio"
    assert boxes(DATASETS.build(found.splits["all"])) == boxes(data)


def test_the_annotation_that_counts(root: Path) -> None:
    truth = annotation(RECT, ground_truth=True, updated_at="2021-01-01")
    newer = annotation(OTHER, updated_at="2022-01-01")
    cancelled = annotation(OTHER, was_cancelled=True, updated_at="2023-01-01")
    assert boxes(read(root, [task(newer, truth, cancelled)])) == [("cat", [6, 8, 36, 24])]
    two = read(root, [task(newer, annotation(RECT, updated_at="2020-01-01"))])
    assert boxes(two) == [("cat", [0, 0, 6, 4])]
    assert two.problems.count(SEVERAL_ANNOTATORS) == 1
    undone = task(cancelled, image="b.jpg", predictions=[annotation(RECT)])
    left = read(root, [task(truth), undone])
    assert (len(left), left.problems.count(UNANNOTATED)) == (1, 1)
    empty = read(root, [task(truth), task(annotation(), image="b.jpg")])
    assert (len(empty), boxes(empty, 1)) == (2, [])


@pytest.mark.parametrize(
    "image",
    [
        "a.jpg",
        "/data/upload/1/0a1b2c3d-a.jpg",
        "/data/local-files/?d=some/images/a.jpg",
        "http://localhost:8080/data/upload/0a1b2c3d-a.jpg",
        "s3://bucket/deep/a.jpg",
        "C:\\pictures\\a.jpg",
    ],
)
def test_the_image_is_found_by_its_name(root: Path, image: str) -> None:
    assert read(root, [task(annotation(RECT), image=image)]).records.path(0) == str(root / "images/a.jpg")


def test_an_upload_under_the_name_that_label_studio_gave_it(root: Path) -> None:
    (root / "images/a.jpg").rename(root / "images/0a1b2c3d-a.jpg")
    assert read(root, [task(annotation(RECT))]).records.file_name(0) == "0a1b2c3d-a.jpg"


def test_older_exports_and_other_keys(root: Path) -> None:
    old = {"id": 1, "completions": [annotation(RECT)], "data": {"picture": "a.jpg", "text": "b.jpg is another"}}
    assert boxes(read(root, [old])) == [("cat", [6, 8, 36, 24])]
    two = {**old, "data": {"left": "a.jpg", "right": "b.jpg"}}
    assert read(root, [two], image_key="right").records.file_name(0) == "b.jpg"
    apart = [
        {"id": "x", "type": "rectangle", "value": {"x": 10, "y": 20, "width": 50, "height": 40}},
        {"id": "x", "type": "labels", "value": {"x": 10, "y": 20, "width": 50, "height": 40, "labels": ["cat"]}},
    ]
    assert boxes(read(root, [task(annotation(*apart))])) == [("cat", [6, 8, 36, 24])]  # its size is the image's


def test_the_minimal_export(root: Path) -> None:
    region = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0, "rectanglelabels": ["cat"],
              "original_width": 60, "original_height": 40}  # fmt: skip
    tasks = [
        {"image": "/data/upload/1/a.jpg", "id": 1, "label": [region], "annotator": 1, "annotation_id": 1},
        {"image": "/data/upload/1/b.jpg", "id": 2, "annotator": 1, "annotation_id": 2},
    ]
    data = read(root, tasks)
    assert [boxes(data, i) for i in range(2)] == [[("cat", [6, 8, 36, 24])], []]
    assert find_data(root).format == "Label Studio"


BROKEN: dict[str, Any] = {
    "no tasks": [],
    "a number": [5],
    "another list": [{"image": "a", "labels": []}],
    "no label": [task(annotation(result("rectangle", [], x=1, y=2, width=3, height=4)))],
    "no width": [task(annotation(result("rectangle", x=1, y=2, height=4)))],
    "masks": [task(annotation(result("brush", format="rle", rle=[1])))],
    "a video": [task(annotation({"type": "videorectangle", "value": {"sequence": []}}))],
    "nothing done": [task()],
    "no image": [task(annotation(RECT), data={"text": "a"})],
    "no list": [task(annotation(RECT, result="x"))],
    "no size": [task(annotation(result("rectangle", size=False, x=1, y=2, width=3, height=4)), image="c.jpg")],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(refuses: Refuses, root: Path, name: str) -> None:
    with refuses(ValueError):
        read(root, BROKEN[name])


def test_missing_files_are_named(refuses: Refuses, root: Path) -> None:
    with refuses(FileNotFoundError):
        read(root, [task(annotation(RECT), image="c.jpg")])
    with pytest.raises(FileNotFoundError, match="1 of 1 image is missing"):
        read(root, [task(annotation(RECT), image="http://[a.jpg")])
    (root / "export.json").unlink()
    with refuses(FileNotFoundError):
        LabelStudioDataset(annotations=str(root / "export.json"), images=str(root))


def test_a_turn_that_is_no_number_is_refused(root: Path) -> None:
    ellipse = result("ellipse", x=50, y=50, radiusX=10, radiusY=5, rotation="left")
    with pytest.raises(ValueError, match="task 7, result 1: rotation is 'left', not a number"):
        read(root, [task(annotation(ellipse))])


def test_regions_of_several_images_are_refused(refuses: Refuses, root: Path) -> None:
    content = [task(annotation(RECT, {**OTHER, "to_name": "second"}), image="a.jpg")]
    with refuses(ValueError):
        read(root, content)
    relation = {**OTHER, "type": "relation", "to_name": "x"}
    assert len(boxes(read(root, [task(annotation(RECT, relation), image="a.jpg")]))) == 1
