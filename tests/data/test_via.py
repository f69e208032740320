"""Files of the VGG Image Annotator: JSON of both versions, CSV, which attribute is the class, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.entries import MOST_FILES
from detkit.data.datasets.found import Place
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, UNNAMED_CLASS
from detkit.data.datasets.via import ViaDataset
from detkit.registry import DATASETS
from tests.refusals import Refuses

RECT = {"name": "rect", "x": 5, "y": 6, "width": 25, "height": 29}
SHAPES = [
    RECT,
    {"name": "polygon", "all_points_x": [10, 20, 15], "all_points_y": [10, 5, 30]},
    {"name": "circle", "cx": 30, "cy": 20, "r": 5.5},
    {"name": "ellipse", "cx": 30, "cy": 20, "rx": 9, "ry": 3, "theta": 1.5707963267948966},
    {"name": "point", "cx": 3, "cy": 4},
    {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [3, 4]},
]
BOXES = [[5, 6, 30, 35], [10, 5, 20, 30], [24.5, 14.5, 35.5, 25.5], [27, 11, 33, 29]]


def regions(*attributes: dict[str, Any], shapes: list[Any] = SHAPES) -> list[dict[str, Any]]:
    pairs = zip(shapes, [*attributes, *[attributes[-1]] * len(shapes)], strict=False)
    return [{"shape_attributes": s, "region_attributes": a} for s, a in pairs]


def entry(name: str, found: Any) -> dict[str, Any]:
    return {"filename": name, "size": 123, "regions": found, "file_attributes": {}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    return tmp_path


def read(root: Path, content: Any, name: str = "via.json", **more: Any) -> ViaDataset:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return ViaDataset(annotations=str(root / name), images=str(root), **more)


def export(*attributes: dict[str, Any], shapes: list[Any] = SHAPES) -> dict[str, Any]:
    return {"a.jpg123": entry("a.jpg", regions(*attributes, shapes=shapes)), "b.jpg123": entry("b.jpg", [])}


def check(data: ViaDataset) -> None:
    assert data.records.annotation(0).boxes.round(3).tolist() == BOXES
    assert [data.classes.names[k] for k in data.records.annotation(0).labels] == ["cat", "dog", "dog", "dog"]
    assert len(data) == 2
    assert (data.problems.count(FROM_OUTLINE), data.problems.count(NO_BOX)) == (3, 2)


def test_a_project_an_export_and_a_csv_are_read_alike(root: Path) -> None:
    content = export({"type": "cat"}, {"type": "dog"})
    check(read(root, content))
    check(read(root, {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}))
    old = {key: {**e, "regions": {str(i): r for i, r in enumerate(e["regions"])}} for key, e in content.items()}
    check(read(root, old))
    with (root / "via.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["#filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
             "region_attributes"]
        )  # fmt: skip
        for e in content.values():
            for i, r in enumerate(e["regions"] or [{"shape_attributes": {}, "region_attributes": {}}]):
                shape, attributes = json.dumps(r["shape_attributes"]), json.dumps(r["region_attributes"])
                writer.writerow([e["filename"], 123, "{}", len(e["regions"]), i, shape, attributes])
    check(ViaDataset(annotations=str(root / "via.csv"), images=str(root)))
    (root / "via.json").unlink()
    found = find_data(root)
    assert (found.format, list(found.splits)) == ("VIA", ["all"])
    check(DATASETS.build(found.splits["all"]))


@pytest.mark.parametrize("value", ["cat", {"cat": True, "dog": False}])
@pytest.mark.parametrize("more", [{"colour": "red"}, {"colour": "red", "id": "7"}])
def test_the_class_is_the_attribute_with_a_usual_name(root: Path, value: Any, more: dict[str, str]) -> None:
    data = read(root, export({**more, "Class": value, "iscrowd": "1"}, shapes=[RECT]))
    assert data.classes.names == ("cat",)
    assert data.records.annotation(0).is_ignore.tolist() == [True]
    assert read(root, export({**more, "Class": value}, shapes=[RECT]), class_attribute="colour").classes.names == (
        "red",
    )


def test_files_of_one_name_in_folders_of_one_name_are_all_read(tmp_path: Path) -> None:
    for folder in ("first/labels", "second/labels"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (60, 40)).save(tmp_path / folder / name)
        (tmp_path / folder / "via.json").write_text(json.dumps(export({"class": "cat"})))
    assert list(find_data(tmp_path).splits) == ["first/labels/via", "second/labels/via"]


def test_no_file_is_left_out_for_there_being_many(tmp_path: Path) -> None:
    for number in range(MOST_FILES + 10):
        (tmp_path / f"{number}.json").write_text(json.dumps({f"{number}.jpg1": entry(f"{number}.jpg", [])}))
    found = ViaDataset.find(Place(tmp_path))
    assert found is not None
    assert len(found.splits) == MOST_FILES + 10


def test_regions_without_attributes_are_of_one_class(root: Path) -> None:
    data = read(root, export({}, shapes=[RECT, RECT]))
    assert data.classes.names == ("object",)
    assert data.problems.count(UNNAMED_CLASS) == 2


BROKEN: dict[str, Any] = {
    "two attributes": export({"shade": "red", "mood": "good"}, shapes=[RECT]),
    "one without": export({"class": "cat"}, {}, shapes=[RECT, RECT]),
    "two checked": export({"class": {"a": True, "b": True}}, shapes=[RECT]),
    "unknown shape": export({"class": "cat"}, shapes=[{"name": "star"}]),
    "no width": export({"class": "cat"}, shapes=[{"name": "rect", "x": 1, "y": 2, "height": 3}]),
    "uneven": export({"class": "cat"}, shapes=[{"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}]),
    "coco": {"images": [], "annotations": [], "categories": []},
    "a list": [1],
    "empty": {},
    "no name": {"a": {"regions": []}},
    "no shape": {"a": entry("a.jpg", [{}])},
    "no list": {"a": entry("a.jpg", "none")},
    "twice": {"a": entry("a.jpg", []), "b": entry("a.jpg", [])},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(refuses: Refuses, root: Path, name: str) -> None:
    with refuses(ValueError):
        read(root, BROKEN[name])


HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"

LONG = HEADER + "a.jpg," + "x" * 200_000


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        HEADER,
        HEADER + 'a.jpg,1,"{}",1,0,"{no",""\n',
        HEADER + ',1,"{}",1,0,"",""\n',
        HEADER + "a.jpg\n",
        HEADER + f'"{"x" * 200_000}"\n',
    ],
)
def test_a_broken_csv_is_named(refuses: Refuses, root: Path, text: str) -> None:
    with refuses(ValueError):
        read(root, text, "via.csv")
