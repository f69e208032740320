"""Which class columns are kept and what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from detkit.interop.classes import coco_classes, detectron2_columns, keep_columns, read_classes, torchvision_columns
from tests.refusals import Refuses


def test_class_names_from_an_annotation_file(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"categories": [{"id": 5, "name": "e"}, {"id": 2, "name": "b"}]}))
    assert read_classes(str(path)) == {2: "b", 5: "e"}
    assert torchvision_columns(6, {2: "b", 5: "e"}).keep == (2, 5)
    assert detectron2_columns(2, {2: "b", 5: "e"}).classes.ids == (2, 5)
    path.write_text("[]")
    with refuses(ValueError):
        read_classes(str(path))


def test_coco_has_80_classes_of_90_ids() -> None:
    classes = coco_classes()
    assert len(classes) == 80
    assert sorted(set(range(1, 91)) - set(classes)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert [classes[i] for i in (1, 11, 13, 90)] == ["person", "fire hydrant", "stop sign", "toothbrush"]


def test_columns_are_kept_anchor_by_anchor() -> None:
    bias = torch.arange(6.0)  # Two anchors of three columns.
    assert keep_columns(bias, 3, (0, 2)).tolist() == [0, 2, 3, 5]
    weight = bias.view(6, 1, 1, 1).expand(6, 2, 3, 3)
    assert keep_columns(weight, 3, (1,)).shape == (2, 2, 3, 3)
    assert keep_columns(weight, 3, (1,))[:, 0, 0, 0].tolist() == [1, 4]


def test_unnamed_classes_get_numbers() -> None:
    assert torchvision_columns(3).classes.names == ("class-0", "class-1", "class-2")
    assert detectron2_columns(2).classes.names == ("class-1", "class-2")
    assert torchvision_columns(91).classes.ids[:13] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14)


def test_names_for_torchvision_are_for_all_columns_or_all_but_the_background(refuses: Refuses) -> None:
    assert torchvision_columns(3, ["a", "b"]).keep == (1, 2)
    assert torchvision_columns(3, ["z", "a", "b"]).keep == (0, 1, 2)
    whole = torchvision_columns(91, keep_all=True).classes
    assert whole.names[:2] == ("unused-0", "person")
    with refuses(ValueError):
        torchvision_columns(6, ["a", "b", "c"])
    with refuses(ValueError):
        torchvision_columns(6, {2: "two", 7: "seven"})
