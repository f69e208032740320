"""Options of images reach the data set that holds them, through those made of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.images import ImageOptions
from detkit.data.datasets.listed import ListDataset
from detkit.registry import DATASETS


@pytest.mark.parametrize("layers", [[], ["AutoDataset"], ["RepeatDataset"], ["AutoDataset", "RepeatDataset"]])
def test_options_reach_the_holder_of_an_image(tmp_path: Path, layers: list[str]) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (400, 400)).save(tmp_path / "outside.jpg")
    content = {
        "images": [{"id": 1, "file_name": "../outside.jpg", "width": 400, "height": 400}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 50, 50]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "data/a.json").write_text(json.dumps(content))
    node: dict[str, Any] = {"type": "CocoDataset", "annotations": str(tmp_path / "data/a.json")}
    node["images"] = str(tmp_path / "data")
    for layer in layers:
        node = {"type": layer, "root": str(tmp_path / "data")} if layer == "AutoDataset" else wrapped(layer, node)
    data: DetectionDataset = DATASETS.build(node)
    data.image_options = ImageOptions(outside=True, scaled_decoding=True)
    assert data.load_image(0).size == (400, 400)
    assert data.image_size(0) == (400, 400)
    scaled, full = data.load_scaled(0, lambda height, width: (100, 100))
    assert (scaled.size, full) == ((100, 100), (400, 400))


def wrapped(layer: str, node: dict[str, Any]) -> dict[str, Any]:
    return {"type": layer, "dataset": node, "times": 2}


def test_the_entries_of_one_file_are_named_beside_a_missing_one(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    entries: list[dict[str, Any]] = [
        {"file_name": name, "boxes": [], "labels": []} for name in ("none.jpg", "a.jpg", "./a.jpg")
    ]
    with pytest.raises(ValueError, match="belongs to several annotations") as info:
        ListDataset(entries=entries, images=str(tmp_path))
    assert "entry 1" in str(info.value)
    assert "entry 2" in str(info.value)
    assert "entry 0" not in str(info.value)
