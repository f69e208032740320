"""Create ML, Datumaro and Scalabel: boxes by hand, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.datumaro import find_image
from detkit.data.datasets.image_finder import ImageFinder
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, Problems
from detkit.registry import DATASETS
from tests.refusals import Refuses


def createml(label: Any = "cat", **coordinates: Any) -> dict[str, Any]:
    return {"label": label, "coordinates": {"x": 20.5, "y": 15, "width": 11, "height": 8, **coordinates}}


def datumaro(*annotations: Any, **more: Any) -> dict[str, Any]:
    labels = [{"name": "dog", "parent": "", "attributes": []}, {"name": "cat"}]
    item = {"id": "sub/a", "annotations": list(annotations), "image": {"path": "sub/a.jpg", "size": [40, 60]}}
    return {"info": {}, "categories": {"label": {"labels": labels}}, "items": [{**item, **more}]}


def bbox(**more: Any) -> dict[str, Any]:
    return {"id": 0, "type": "bbox", "attributes": {}, "group": 0, "label_id": 1, "bbox": [15, 11, 11, 8], **more}


def scalabel(*labels: Any, **more: Any) -> dict[str, Any]:
    return {"name": "a.jpg", "labels": list(labels), **more}


BOX = {"category": "cat", "box2d": {"x1": 15, "y1": 11, "x2": 26, "y2": 19}, "attributes": {"occluded": True}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("images/sub/a.jpg", "images/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    return tmp_path


def read(root: Path, part: str, content: Any, **more: Any) -> DetectionDataset:
    file = root / "annotations" / "train.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    node = {"type": part, "annotations": str(file), "images": str(root / "images"), **more}
    dataset: DetectionDataset = DATASETS.build(node)
    return dataset


def boxes(data: DetectionDataset, index: int = 0) -> list[Any]:
    a = data.records.annotation(index)
    rows = zip(a.boxes.tolist(), a.labels.tolist(), a.is_ignore.tolist(), strict=True)
    return [(data.classes.names[k], b, ignore) for b, k, ignore in rows]


CAT = [("cat", [15, 11, 26, 19], False)]


def test_create_ml_counts_from_the_centre(root: Path) -> None:
    content = [{"image": "a.jpg", "annotations": [createml()]}, {"imagefilename": "b.jpg", "annotation": []}]
    data = read(root, "CreateMlDataset", content)
    assert [boxes(data, i) for i in range(2)] == [CAT, []]
    corner = read(root, "CreateMlDataset", content, box_format="xywh")
    assert boxes(corner) == [("cat", [20.5, 15, 31.5, 23], False)]
    found = find_data(root)
    assert (found.format, list(found.splits)) == ("Create ML", ["train"])
    assert boxes(DATASETS.build(found.splits["train"])) == CAT


def test_datumaro(root: Path) -> None:
    more = [
        bbox(label_id=0, attributes={"is_crowd": True}),
        {"type": "polygon", "label_id": 0, "points": [1, 2, 9, 3, 4, 8]},
        {"type": "points", "label_id": 0, "points": [1, 2]},
        {"type": "label", "label_id": 0},
    ]
    data = read(root, "DatumaroDataset", datumaro(bbox(), *more))
    assert data.classes.names == ("dog", "cat")
    assert boxes(data) == [*CAT, ("dog", [15, 11, 26, 19], True), ("dog", [1, 2, 9, 8], False)]
    assert (data.problems.count(FROM_OUTLINE), data.problems.count(NO_BOX)) == (1, 2)
    by_id = read(root, "DatumaroDataset", datumaro(bbox(), image={}))
    assert by_id.records.path(0) == str(root / "images/sub/a.jpg")
    found = find_data(root)
    assert (found.format, list(found.splits)) == ("Datumaro", ["train"])
    assert boxes(DATASETS.build(found.splits["train"])) == CAT


def test_the_images_of_datumaro_are_gone_through_once(root: Path) -> None:
    class Counted(dict[str, list[str]]):
        times = 0

        def __iter__(self) -> Iterator[str]:
            self.times += 1
            return super().__iter__()

    finder = ImageFinder(root / "images", Problems())
    finder.by_name = names = Counted(finder.by_name)
    found = [find_image(name, "item", finder) for name in ("sub/a", "b", "b.jpg")]
    assert found == [str(root / "images" / name) for name in ("sub/a.jpg", "b.jpg", "b.jpg")]
    assert names.times == 1


def test_a_turned_box_of_datumaro_is_surrounded(root: Path) -> None:
    turned = bbox(bbox=[20, 10, 20, 10], attributes={"occluded": False, "rotation": 90.0})
    data = read(root, "DatumaroDataset", datumaro(turned, bbox(attributes={"rotation": 0.0})))
    assert boxes(data) == [("cat", [25, 5, 35, 25], False), *CAT]
    assert data.problems.count(FROM_OUTLINE) == 1


def test_scalabel_and_bdd100k(root: Path) -> None:
    lane = {"category": "lane", "poly2d": [{"vertices": [[1, 2], [3, 4]]}]}
    frames = [scalabel(BOX, lane), {"name": "b.jpg", "labels": None}]
    data = read(root, "ScalabelDataset", frames)
    assert [boxes(data, i) for i in range(2)] == [CAT, []]
    assert data.problems.count(NO_BOX) == 1
    found = find_data(root)
    assert (found.format, list(found.splits)) == ("Scalabel", ["train"])
    config = {"categories": [{"name": "dog"}, {"name": "cat"}]}
    whole = read(root, "ScalabelDataset", {"frames": frames, "config": config})
    assert whole.classes.names == ("dog", "cat")
    assert boxes(whole) == CAT


BROKEN: dict[str, tuple[str, Any]] = {
    "createml: coco": ("CreateMlDataset", {"images": [], "annotations": [], "categories": []}),
    "createml: empty": ("CreateMlDataset", []),
    "createml: no image": ("CreateMlDataset", [{"annotations": []}]),
    "createml: no list": ("CreateMlDataset", [{"image": "a.jpg"}]),
    "createml: no label": ("CreateMlDataset", [{"image": "a.jpg", "annotations": [createml("")]}]),
    "createml: words": ("CreateMlDataset", [{"image": "a.jpg", "annotations": [createml(x="left")]}]),
    "createml: no box": ("CreateMlDataset", [{"image": "a.jpg", "annotations": [{"label": "cat"}]}]),
    "createml: twice": ("CreateMlDataset", [{"image": "a.jpg", "annotations": []}] * 2),
    "datumaro: coco": ("DatumaroDataset", {"images": [], "annotations": [], "categories": []}),
    "datumaro: unknown label": ("DatumaroDataset", datumaro(bbox(label_id=2))),
    "datumaro: no label": ("DatumaroDataset", datumaro(bbox(label_id=None))),
    "datumaro: a mask": ("DatumaroDataset", datumaro(bbox(type="mask"))),
    "datumaro: short": ("DatumaroDataset", datumaro(bbox(bbox=[1, 2, 3]))),
    "datumaro: no name": ("DatumaroDataset", datumaro(id="", image={})),
    "datumaro: no items": ("DatumaroDataset", {"items": [], "categories": {}}),
    "scalabel: a text": ("ScalabelDataset", "a"),
    "scalabel: no name": ("ScalabelDataset", [{"labels": []}]),
    "scalabel: no category": ("ScalabelDataset", [scalabel({"box2d": BOX["box2d"]})]),
    "scalabel: no corner": ("ScalabelDataset", [scalabel({"category": "cat", "box2d": {"x1": 1}})]),
    "scalabel: no frames": ("ScalabelDataset", {"frames": []}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(refuses: Refuses, root: Path, name: str) -> None:
    part, content = BROKEN[name]
    with refuses(ValueError):
        read(root, part, content)


def test_corners_are_no_notation_of_create_ml(refuses: Refuses, root: Path) -> None:
    with refuses(ValueError):
        read(root, "CreateMlDataset", [{"image": "a.jpg", "annotations": [createml()]}], box_format="xyxy")
