"""Data sets of the library `datasets`, made on the spot: saved, as Parquet, in every layout of columns."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.hugging_face import HuggingFaceDataset
from detkit.data.datasets.images import ImageOptions
from detkit.data.datasets.parquet import ParquetDataset
from detkit.registry import DATASETS
from tests.refusals import Refuses

hf: Any = pytest.importorskip("datasets")
PIXELS = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3)).astype(np.uint8)
NOTHING: dict[str, Any] = {"bbox": [], "category": []}
BOXES = [[[5.5, 6, 25, 29], [0, 0, 10, 20]], []]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", True)
    hf.disable_progress_bars()


def png(pixels: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def table(**columns: Any) -> Any:
    """Two rows; of the first, two boxes."""
    classes = hf.List(hf.ClassLabel(names=["dog", "cat", "cow"]))
    objects = {"bbox": hf.List(hf.List(hf.Value("float32"))), "category": classes}
    features = {"image": hf.Image(), "image_id": hf.Value("int64"), "objects": objects}
    content = {
        "image": [{"bytes": png(p), "path": f"{name}.png"} for p, name in zip(PIXELS, "ab", strict=True)],
        "image_id": [7, 9],
        "objects": [{"bbox": b, "category": [1, 0][: len(b)]} for b in BOXES],
        **columns,
    }
    content = {name: column for name, column in content.items() if column is not None}
    return hf.Dataset.from_dict(content, features=hf.Features(features) if not columns else None)


def boxes(data: Any, index: int = 0) -> list[Any]:
    a = data.records.annotation(index)
    rows = zip(a.boxes.tolist(), a.labels.tolist(), a.is_ignore.tolist(), strict=True)
    return [(data.classes.names[k], b, ignore) for b, k, ignore in rows]


def check(data: Any) -> None:
    assert data.classes.names == ("dog", "cat", "cow")
    assert [boxes(data, i) for i in range(2)] == [
        [("cat", [5.5, 6, 30.5, 35], False), ("dog", [0, 0, 10, 20], False)], [],
    ]  # fmt: skip
    assert data.records.image_ids.tolist() == [7, 9]
    assert [data.records.file_name(i) for i in range(2)] == ["a.png", "b.png"]
    assert all(np.array_equal(np.asarray(data.load_image(i)), PIXELS[i]) for i in range(2))
    assert data.image_size(0) == (40, 60)


def test_a_saved_set_is_read(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "saved")
    found = find_data(tmp_path / "saved")
    assert (found.format, list(found.splits)) == ("Hugging Face", ["all"])
    check(DATASETS.build(found.splits["all"]))
    check(pickle.loads(pickle.dumps(DATASETS.build(found.splits["all"]))))


def test_the_splits_of_a_saved_set(refuses: Refuses, tmp_path: Path) -> None:
    hf.DatasetDict({"train": table(), "validation": table().select([1, 0])}).save_to_disk(tmp_path / "saved")
    found = find_data(tmp_path / "saved")
    assert sorted(found.splits) == ["train", "val"]
    check(DATASETS.build(found.splits["train"]))
    val = DATASETS.build(found.splits["val"])
    assert val.records.image_ids.tolist() == [9, 7]
    assert np.array_equal(np.asarray(val.load_image(0)), PIXELS[1])
    without = DATASETS.build({**found.splits["val"], "keep_empty": False})
    assert np.array_equal(np.asarray(without.load_image(0)), PIXELS[0])
    for split in (None, "test"):
        with refuses(ValueError):
            HuggingFaceDataset(root=str(tmp_path / "saved"), split=split)


def test_no_split_of_a_saved_set_hides_another(tmp_path: Path) -> None:
    parts = {"train": table(), "train_extra": table().select([1]), "test": table().select([0])}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    found = find_data(tmp_path / "saved").splits
    assert {split: len(DATASETS.build(node)) for split, node in found.items()} == {
        "test": 1, "train": 2, "train_extra": 1,
    }  # fmt: skip


def test_only_the_column_of_the_classes_names_them(tmp_path: Path) -> None:
    plain = table()
    features = {"label": hf.ClassLabel(names=["indoor", "outdoor"]), **plain.features}
    features["objects"] = {"blur": hf.List(hf.ClassLabel(names=["sharp", "soft"])), **plain.features["objects"]}
    content = {
        "label": [0, 1],
        "image": [{"bytes": png(p), "path": f"{name}.png"} for p, name in zip(PIXELS, "ab", strict=True)],
        "image_id": [7, 9],
        "objects": [{"blur": [0] * len(row["bbox"]), **row} for row in plain["objects"]],
    }
    saved = hf.Dataset.from_dict(content, features=hf.Features(features))
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "a.parquet")
    check(HuggingFaceDataset(root=str(tmp_path / "saved")))
    check(ParquetDataset(root=str(tmp_path / "a.parquet")))


def test_parquet_files_are_read(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    table().to_parquet(tmp_path / "data/validation-00000-of-00001.parquet")
    for split in ("train", "val"):
        check(HuggingFaceDataset(root=str(tmp_path / "data"), split=split))
    check(HuggingFaceDataset(root=str(tmp_path / "data/train-00000-of-00001.parquet")))


@pytest.mark.parametrize(
    ("columns", "options", "name"),
    [
        ({"objects": [[{"bbox": [5, 6, 25, 29], "category": "cat"}], []]}, {}, "cat"),
        ({"objects": [{"bbox": [[5, 6, 30, 35]], "label": [1]}, {"bbox": [], "label": []}]},
         {"box_format": "xyxy", "names": ["dog", "cat"]}, "cat"),
        ({"objects": None, "boxes": [[[5, 6, 30, 35]], []], "labels": [[1], []]}, {}, "1"),
        ({"objects": None, "things": [{"bbox": [[17.5, 20.5, 25, 29]], "category": ["cat"]}, NOTHING]},
         {"objects_column": "things", "box_format": "cxcywh"}, "cat"),
        ({"objects": [{"bbox": [[1 / 12, 0.15, 25 / 60, 29 / 40]], "category": ["cat"]}, NOTHING],
          "width": [60, 60], "height": [40, 40]}, {"relative": True}, "cat"),
    ],
)  # fmt: skip
def test_other_columns_and_notations(tmp_path: Path, columns: Any, options: Any, name: str) -> None:
    table(**columns).save_to_disk(tmp_path / "saved")
    data = HuggingFaceDataset(root=str(tmp_path / "saved"), **options)
    found = [(n, [round(v, 3) for v in b], i) for n, b, i in boxes(data)]
    assert found == [(name, [5, 6, 30, 35], False)]
    assert boxes(data, 1) == []


def test_images_beside_the_table_are_opened(refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    paths = [str(tmp_path / f"saved/{name}.png") for name in "ab"]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    saved = table(image=[{"bytes": None, "path": path} for path in paths])
    saved.save_to_disk(tmp_path / "saved")
    data = HuggingFaceDataset(root=str(tmp_path / "saved"), names=["dog", "cat", "cow"])
    check(data)
    shutil.move(tmp_path / "saved/b.png", tmp_path / "b.png")
    with refuses(FileNotFoundError):
        HuggingFaceDataset(root=str(tmp_path / "saved"))
    outside = table(image=[{"bytes": None, "path": str(tmp_path / f"{name}.png")} for name in "bb"])
    outside.save_to_disk(tmp_path / "other")
    elsewhere = HuggingFaceDataset(root=str(tmp_path / "other"))
    with refuses(ValueError):
        elsewhere.load_image(0)
    elsewhere.image_options = ImageOptions(outside=True)
    assert np.array_equal(np.asarray(elsewhere.load_image(0)), PIXELS[1])


BROKEN: dict[str, Any] = {
    "no image column": {"image": [1, 2]},
    "no image": {"image": [{"bytes": None, "path": None}, {"bytes": png(PIXELS[0]), "path": None}]},
    "no picture": {"image": [{"bytes": b"text", "path": "a.png"}] * 2},
    "no objects": {"objects": [1, 2]},
    "no labels": {"objects": [{"bbox": [[1, 2, 3, 4]]}] * 2},
    "uneven": {"objects": [{"bbox": [[1, 2, 3, 4]], "category": [1, 2]}] * 2},
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_columns_are_named(refuses: Refuses, tmp_path: Path, name: str) -> None:
    table(**BROKEN[name]).save_to_disk(tmp_path / "saved")
    with refuses(ValueError):
        HuggingFaceDataset(root=str(tmp_path / "saved"))


def test_what_is_no_saved_set_is_named(refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refuses(ValueError):
        HuggingFaceDataset()
    with refuses(ValueError):
        HuggingFaceDataset(root=str(tmp_path))
    with refuses(FileNotFoundError):
        HuggingFaceDataset(root=str(tmp_path / "none"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"datasets can't read it"):
        HuggingFaceDataset(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"no/such: datasets can't read it"):
        HuggingFaceDataset(name="no/such")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with refuses(ValueError):
        HuggingFaceDataset(root=str(tmp_path))


def exported(columns: Any, path: Path) -> Any:
    """The first part that says it reads a Parquet export, and its data set."""
    table(**columns).to_parquet(path)
    found = find_data(path.parent)
    assert not found.notes
    (node,) = found.splits.values()
    return node["type"], DATASETS.build(node)


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({}, "ParquetDataset"),
        ({"objects": None, "annotations": [{"bbox": b, "category": ["cat", "dog"][: len(b)]} for b in BOXES]},
         "ParquetDataset"),
        ({"objects": None, "boxes": [[[5, 6, 30, 35]], []], "labels": [["cat"], []]}, "HuggingFaceDataset"),
    ],
)  # fmt: skip
def test_the_right_part_reads_an_export(tmp_path: Path, columns: Any, part: str) -> None:
    name, data = exported(columns, tmp_path / "set/train.parquet")
    assert name == part
    assert boxes(data)[0][0] == "cat"
    assert all(np.array_equal(np.asarray(data.load_image(i)), PIXELS[i]) for i in range(2))


def test_an_export_with_another_column_of_images(tmp_path: Path) -> None:
    table().rename_column("image", "photo").to_parquet(tmp_path / "set/train.parquet")
    node = find_data(tmp_path / "set").splits["train"]
    assert (node["type"], node["image"]) == ("ParquetDataset", "photo")
    check(DATASETS.build(node))


def test_an_export_that_only_names_its_images(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"set/{name}.png") for name in "ab"]
    (tmp_path / "set").mkdir()
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    rows = table().remove_columns("image").add_column("image", paths).cast_column("image", hf.Image())
    rows.to_parquet(tmp_path / "set/train.parquet")
    found = find_data(tmp_path / "set")
    assert found.splits["train"]["type"] == "HuggingFaceDataset"
    check(DATASETS.build(found.splits["train"]))


def test_a_saved_set_with_parquet_files_beside_it_is_the_saved_set(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "set")
    assert find_data(tmp_path / "set").splits["all"]["type"] == "HuggingFaceDataset"
    assert not find_data(tmp_path / "set").notes
