"""Data sets made of others."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.config import load_config
from detkit.data.build import build_datasets
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.combine import round_factors
from detkit.registry import DATASETS
from tests.data.writers.sets import Picture, coco_set, pixels, rows
from tests.refusals import Refuses

A, B, C = ("a", 1.0, 2.0, 10.0, 20.0), ("b", 3.0, 4.0, 11.0, 21.0), ("c", 5.0, 6.0, 12.0, 22.0)


@pytest.fixture
def parts(tmp_path: Path) -> list[dict[str, Any]]:
    """Two COCO sets whose classes, in different orders, overlap, with images of the same names and ids."""
    coco_set(tmp_path / "1", ["a", "b"], [Picture("1.png", [A, B]), Picture("2.png")])
    coco_set(tmp_path / "2", ["c", "b"], [Picture("1.png", [B, C, C], crowd=[2])])
    places = [tmp_path / "1", tmp_path / "2"]
    return [{"type": "CocoDataset", "annotations": f"{p}/a.json", "images": f"{p}/images"} for p in places]


def build(name: str, **arguments: Any) -> DetectionDataset:
    dataset: DetectionDataset = DATASETS.build({"type": name, **arguments})
    return dataset


def test_concat_merges_classes_by_name(parts: list[dict[str, Any]]) -> None:
    first, second = map(DATASETS.build, parts)
    dataset = build("ConcatDataset", datasets=parts)
    assert dataset.classes.names == ("a", "b", "c")
    assert dataset.classes.ids == (10, 11, 12)
    assert rows(dataset) == rows(first) + rows(second)
    assert pixels(dataset) == pixels(first) + pixels(second)
    assert dataset.records.image_ids.tolist() == [1, 2, 3]
    assert [dataset.records.path(i) for i in range(3)] == [
        d.records.path(i) for d, i in ((first, 0), (first, 1), (second, 0))
    ]


def test_concat_keeps_ids_that_are_unique(tmp_path: Path) -> None:
    for k in (5, 7):
        coco_set(tmp_path / str(k), ["a"], [Picture("1.png", [A], image_id=k)])
    nodes = [{"type": "CocoDataset", "annotations": f"{tmp_path}/{k}/a.json", "images": f"{tmp_path}/{k}/images"}
             for k in (7, 5)]  # fmt: skip
    assert build("ConcatDataset", datasets=nodes).records.image_ids.tolist() == [7, 5]


def test_concat_merges_problems(tmp_path: Path) -> None:
    bad = [("a", 3.0, 3.0, 0.0, 4.0)]
    nodes = []
    for k in "12":
        coco_set(tmp_path / k, ["a"], [Picture("1.png", [A, *bad])])
        nodes.append(
            {"type": "CocoDataset", "annotations": f"{tmp_path}/{k}/a.json", "images": f"{tmp_path}/{k}/images"}
        )
    dataset = build("ConcatDataset", datasets=nodes)
    assert dataset.problems.lost_count == 2
    assert dataset.records.truth.trained.tolist() == [True, False] * 2


def test_the_content_hash_is_that_of_the_content(parts: list[dict[str, Any]]) -> None:
    hashes = [build("ConcatDataset", datasets=nodes).content_hash() for nodes in (parts, parts, parts[::-1], parts[:1])]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert hashes[3] == DATASETS.build(parts[0]).content_hash()


def test_a_subset_is_named_by_any_end_of_a_path(tmp_path: Path) -> None:
    coco_set(tmp_path, ["a"], [Picture("x/1.png", [A]), Picture("y/1.png"), Picture("z/2 ü.png", [A, A])])
    node = {"type": "CocoDataset", "annotations": f"{tmp_path}/a.json", "images": f"{tmp_path}/images"}
    dataset = build("SubsetDataset", dataset=node, images=["2 ü.png", "images/x/1.png"])
    assert [len(image) for image in rows(dataset)] == [2, 1]
    assert pixels(dataset) == [pixels(DATASETS.build(node))[i] for i in (2, 0)]
    (tmp_path / "list.txt").write_text("\ufeffx/1.png\r\n\r\n./y/1.png\r\n", encoding="utf-8")
    assert len(build("SubsetDataset", dataset=node, images=str(tmp_path / "list.txt"))) == 2


@pytest.mark.parametrize("images", [["1.png"], ["3.png"], ["x/1.png", "x/1.png"], []])
def test_a_subset_refuses(tmp_path: Path, refuses: Refuses, images: list[str]) -> None:
    coco_set(tmp_path, ["a"], [Picture("x/1.png", [A]), Picture("y/1.png"), Picture("z/2.png", [A, A])])
    node = {"type": "CocoDataset", "annotations": f"{tmp_path}/a.json", "images": f"{tmp_path}/images"}
    with refuses(ValueError):
        build("SubsetDataset", dataset=node, images=images)


def test_repeat_gives_every_time_an_id_of_its_own(parts: list[dict[str, Any]]) -> None:
    dataset, once = build("RepeatDataset", dataset=parts[0], times=3), DATASETS.build(parts[0])
    assert dataset.records.image_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert rows(dataset) == rows(once) * 3
    assert pixels(dataset) == pixels(once) * 3


def test_class_balanced_repeats_images_by_the_rarest_of_their_classes(tmp_path: Path) -> None:
    pictures = [Picture(f"{i}.png", [A]) for i in range(14)] + [
        Picture("b.png", [A, B]),
        Picture("c.png", [C], crowd=[0]),
    ]
    coco_set(tmp_path, ["a", "b", "c"], pictures)
    node = {"type": "CocoDataset", "annotations": f"{tmp_path}/a.json", "images": f"{tmp_path}/images"}
    dataset = build("ClassBalancedDataset", dataset=node, threshold=0.5625)
    # b is in 1 of 16 images: sqrt(0.5625 * 16) = 3; a is in 15 of them; c has an ignore region only.
    names = [dataset.records.file_name(i) for i in range(len(dataset))]
    assert {name: names.count(name) for name in set(names)} == {
        **{f"{i}.png": 1 for i in range(14)},
        "b.png": 3,
        "c.png": 1,
    }
    assert len(set(dataset.records.image_ids.tolist())) == 18
    assert pixels(dataset)[names.index("b.png", 15)] == pixels(dataset)[names.index("b.png")]


def test_factors_are_rounded_to_the_right_sum() -> None:
    times = round_factors(np.array([1.5, 1.5, 1.0, 2.3, 1.2, 1.0]))
    assert times.tolist() == [2, 1, 1, 2, 2, 1]
    assert times.sum() == 9
    assert round_factors(np.full(1000, 1.1)).sum() == 1100


def test_parts_nest_in_a_config_with_paths_relative_to_it(tmp_path: Path) -> None:
    coco_set(tmp_path / "d", ["a"], [Picture("1.png", [A]), Picture("2.png")])
    (tmp_path / "d/list.txt").write_text("2.png\n1.png\n")
    coco = "{type: CocoDataset, annotations: d/a.json, images: d/images}"
    inner = f"{{type: SubsetDataset, images: d/list.txt, dataset: {coco}}}"
    data = f"{{type: ConcatDataset, datasets: [{inner}, {{type: ShapesDataset, num_images: 3}}]}}"
    (tmp_path / "c.yaml").write_text(f"_base_: quickstart\ndata:\n  train:\n    dataset: {data}\n")
    config = load_config(tmp_path / "c.yaml", ["data.val.dataset.num_images=2"])
    train, val = build_datasets(config)
    assert len(train) == 5
    assert train.records.path(0) == str(tmp_path / "d/images/2.png")
    assert train.classes.names[0] == "a"
    assert val.classes.names == train.classes.names
    assert config.data.train.dataset.datasets[0].dataset.bad_boxes == "drop"
    assert pickle.loads(pickle.dumps(train)).content_hash() == train.content_hash()


@pytest.mark.parametrize("change", ["anotations: x", "type: CocoDatset", "images: 3"])
def test_a_wrong_key_of_an_inner_part_is_named_with_its_line(tmp_path: Path, refuses: Refuses, change: str) -> None:
    keys = {"type": "CocoDataset", "annotations": "a.json", "images": "i", **dict([change.split(": ")])}
    lines = "".join(f"          {key}: {value}\n" for key, value in keys.items())
    (tmp_path / "c.yaml").write_text(
        "_base_: quickstart\ndata:\n  train:\n    dataset:\n      type: ConcatDataset\n      datasets:\n"
        f"        -\n{lines}"
    )
    with refuses(ValueError, hide=r"Known: .*Imported"):
        load_config(tmp_path / "c.yaml")


def test_an_inner_part_that_is_missing_names_its_path(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "c.yaml").write_text(
        "_base_: quickstart\ndata:\n  train:\n    dataset:\n      type: RepeatDataset\n      times: 2\n"
        "      dataset: {type: CocoDataset, annotations: a.json, images: i}\n"
    )
    with refuses(FileNotFoundError):
        build_datasets(load_config(tmp_path / "c.yaml"))


def test_images_are_read_with_the_options_of_the_whole(tmp_path: Path) -> None:
    coco_set(tmp_path, ["a"], [Picture("1.png", [A])])
    node = {"type": "CocoDataset", "annotations": f"{tmp_path}/a.json", "images": f"{tmp_path}/images"}
    inner = {"type": "SubsetDataset", "dataset": node, "images": ["1.png"]}
    dataset = build("RepeatDataset", dataset=inner, times=1)
    path = tmp_path / "images/1.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises((ValueError, OSError)):
        dataset.load_image(0)
    dataset.image_options = replace(dataset.image_options, bad_images="repair")
    assert dataset.load_image(0).size == (64, 48)
