"""Slices: which columns there are, how images fall into groups, and the AP of a group against the evaluator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.data.datasets.base import Subset
from detkit.evaluate.report.slices import chosen_columns, groups_of, image_columns
from tests.evaluate.report.made import Made
from tests.refusals import Refuses

A, B = (4.0, 4.0, 34.0, 34.0), (50.0, 10.0, 80.0, 40.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    extra: list[dict[str, Any]] = [
        {"city": "Köln", "night": True, "lux": 3.5, "tags": ["a"]},
        {"city": "東京", "night": False, "lux": 80.0},
        {"city": "Köln", "night": False, "note": ""},
        {"night": True, "lux": 5},
    ]
    images = [[(A, 0)], [(A, 0), (B, 0)], [(B, 0)], []]
    return Made(tmp_path_factory.mktemp("made"), ("cat",), images, extra)


def test_the_columns_of_a_file(made: Made) -> None:
    columns = image_columns(made.dataset)
    assert {name: list(values) for name, values in columns.items()} == {
        "city": ["Köln", "東京", "Köln", None], "night": [True, False, False, True], "lux": [3.5, 80.0, None, 5],
        "width": [96] * 4, "height": [64] * 4, "objects": [1, 2, 1, 0],
    }  # fmt: skip


def test_columns_follow_the_images_of_a_part(made: Made) -> None:
    part = Subset(made.dataset, [3, 1], "part")
    assert image_columns(part)["city"] == [None, "東京"]
    assert image_columns(part)["objects"] == [0, 2]


def test_an_unknown_column_is_refused(made: Made, refuses: Refuses) -> None:
    with refuses(ValueError):
        chosen_columns(Subset(made.dataset, [0], "annotations"), ["cities"])


def test_groups() -> None:
    def names(column: list[Any]) -> dict[str, list[int]]:
        return {name: images.tolist() for name, images in groups_of(column).items()}

    assert names(["b", None, "a", "b"]) == {"b": [0, 3], "a": [2], "no value": [1]}
    assert names([True, False, True]) == {"true": [0, 2], "false": [1]}
    assert names([10, 2, 2.0, math.nan]) == {"2": [1, 2], "10": [0], "no value": [3]}
    assert names([1, "x"]) == {"1": [0], "x": [1]}
    quarters = names([float(v) for v in range(1, 9)])
    assert list(quarters) == ["1 to 2.75", "above 2.75 to 4.5", "above 4.5 to 6.25", "above 6.25 to 8"]
    assert list(quarters.values()) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    ties = names([0.0] * 20 + [float(v) for v in range(1, 8)])
    assert sorted(i for images in ties.values() for i in images) == list(range(27))
    many = names([f"v{v:02}" for v in range(30)] + ["v07"])
    assert (len(many), next(iter(many)), list(many)[-1]) == (12, "v07", "19 other values")


def test_the_ap_of_a_slice_is_that_of_its_images_alone(made: Made) -> None:
    found = [[(A, 0.9, 0)], [(A, 0.8, 0), (A, 0.85, 0)], [(A, 0.7, 0)], [(B, 0.95, 0)]]
    content = made.find(found, ["city", "night"])
    assert list(content["slices"]) == ["city", "night"]
    rows = {row["name"]: row for row in content["slices"]["city"]}
    assert {name: (row["images"], row["objects"]) for name, row in rows.items()} == {
        "Köln": (2, 2), "東京": (1, 2), "no value": (1, 0),
    }  # fmt: skip
    assert rows["Köln"]["ap"] == pytest.approx(51 / 101)
    assert rows["no value"]["ap"] is None
    alone = Made(made.root / "night", ("cat",), [made.images[0], made.images[3]])
    result = alone.evaluated([found[0], found[3]]).result
    night = next(row for row in content["slices"]["night"] if row["name"] == "true")
    assert (night["ap"], night["ap75"]) == (pytest.approx(result.ap), pytest.approx(result.ap75))
    assert night["low"] <= night["ap"] <= night["high"]
    assert rows["東京"]["low"] is None


def test_data_without_metadata_have_sizes_and_objects() -> None:
    from detkit.data.datasets.shapes import ShapesDataset

    dataset = ShapesDataset(num_images=3, size=64, split="val")
    assert set(image_columns(dataset)) == {"width", "height", "objects"}
    assert sum(np.array(image_columns(dataset)["objects"])) == (~dataset.records.truth.is_ignore).sum()


def test_a_merged_file_keeps_its_first_entry(tmp_path: Path) -> None:
    import json

    from detkit.data.datasets.coco import CocoDataset

    made = Made(tmp_path, ("cat",), [[(A, 0)]], [{"city": "Rome"}])
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"].append({**content["images"][0], "id": 7, "city": "Oslo"})
    (tmp_path / "b.json").write_text(json.dumps(content))
    dataset = CocoDataset(annotations=str(tmp_path / "b.json"), images=str(made.root), same_file="merge")
    assert image_columns(dataset)["city"] == ["Rome"]
