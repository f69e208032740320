"""Data sets in Parquet and tar shards."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detkit.data.datasets import parquet, web_shards
from detkit.data.datasets.auto import find_data
from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.parquet import ParquetDataset
from detkit.data.datasets.problems import SUSPECT
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.datasets.shards import entry_of
from detkit.data.datasets.web_shards import WebDataset
from detkit.data.image_cache import ImageCache
from detkit.data.loader import LoaderOptions, TrainBatches, build_train_loader
from detkit.data.preparation import Preparation
from detkit.data.seeding import Layout, permutation
from detkit.data.writers import shards as writer
from detkit.data.writers.convert import Format, convert
from detkit.registry import DATASETS
from tests.refusals import Refuses

FORMATS: list[Format] = ["parquet", "webdataset"]
PARTS: dict[str, Any] = {"parquet": ParquetDataset, "webdataset": WebDataset}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """14 images with crowds, one without objects, one sideways by EXIF; image ids that do not begin at 1."""
    folder = tmp_path_factory.mktemp("coco")
    ShapesDataset(num_images=14, size=96).write_coco(folder / "images", folder / "a.json")
    content = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    for image in content["images"]:
        image["id"] += 100
    for a in content["annotations"]:
        a["image_id"] += 100
    for category in content["categories"]:
        category["name"] = f"{category['name']} Größe"
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    first = folder / "images" / content["images"][0]["file_name"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(first).save(first, exif=exif)
    return CocoDataset(annotations=str(folder / "a.json"), images=str(folder / "images"))


@pytest.fixture(autouse=True)
def _small_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writer, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(writer, "GROUP_BYTES", 40_000)


def written(coco: CocoDataset, folder: Path, to: Format, **options: Any) -> DetectionDataset:
    node = convert({"train": coco}, folder, to).nodes["train"]
    data: DetectionDataset = DATASETS.build({**node, **options})
    return data


@pytest.mark.parametrize("to", FORMATS)
def test_shards_hold_the_same_data_and_give_the_same_first_batches(
    coco: CocoDataset, tmp_path: Path, to: Format
) -> None:
    data = written(coco, tmp_path / "out", to)
    assert isinstance(data, PARTS[to])
    assert len(data.shards) > 1
    assert data.content_hash() == coco.content_hash()
    assert not list(data.problems)
    options = LoaderOptions(batch_size=4, num_workers=0)
    mine, theirs = (iter(build_train_loader(d, [], options, seed=3)) for d in (data, coco))
    for _ in range(5):
        a, b = next(mine), next(theirs)
        assert a.image_ids == b.image_ids
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(s.boxes, t.boxes) for s, t in zip(a.targets, b.targets, strict=True))
        assert all(torch.equal(s.ignore, t.ignore) for s, t in zip(a.targets, b.targets, strict=True))


def test_parquet_files_with_paths_for_images_are_refused(tmp_path: Path, refuses: Refuses) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    objects = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": ["cat"]}]
    parquet.write_table(pyarrow.table({"image": ["a.jpg"], "objects": objects}), tmp_path / "a.parquet")
    with refuses(ValueError):
        ParquetDataset(root=str(tmp_path))


@pytest.mark.parametrize("to", FORMATS)
def test_several_kinds_of_shards_of_a_split_are_all_found(coco: CocoDataset, tmp_path: Path, to: Format) -> None:
    convert({"train": coco, "val": Subset(coco, [3, 1], "val")}, tmp_path / "out", to)
    shards = [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".tar", ".parquet")]
    for number, file in enumerate(sorted(shards)):
        kind = "b" if "val" in str(file.relative_to(tmp_path)) else "a"
        file.rename(tmp_path / f"train_{kind}-{number:05d}{file.suffix.upper()}")
    found = find_data(tmp_path).splits
    assert list(found) == ["train_a", "train_b"]
    assert sorted(len(DATASETS.build(node)) for node in found.values()) == [2, len(coco)]


@pytest.mark.parametrize("to", FORMATS)
def test_shards_are_found_by_looking_and_read_with_class_settings(
    coco: CocoDataset, tmp_path: Path, to: Format
) -> None:
    convert({"train": coco, "val": Subset(coco, [3, 1], "val")}, tmp_path / "out", to)
    found = find_data(tmp_path / "out")
    assert set(found.splits) == {"train", "val"}
    val: DetectionDataset = DATASETS.build(found.splits["val"])
    assert val.records.image_ids.tolist() == [104, 102]
    names = [coco.classes.names[2], coco.classes.names[0]]
    chosen: DetectionDataset = DATASETS.build({**found.splits["train"], "class_names": names, "keep_empty": False})
    same = CocoDataset(
        annotations=coco.name, images=str(Path(coco.records.path(0)).parent), class_names=names, keep_empty=False
    )
    assert chosen.content_hash() == same.content_hash()
    assert len(chosen) < len(coco)
    for i in (0, len(same) - 1):
        assert np.array_equal(np.asarray(chosen.load_image(i)), np.asarray(same.load_image(i)))


@pytest.mark.parametrize("to", FORMATS)
def test_an_image_is_read_by_workers_copies_and_the_cache(coco: CocoDataset, tmp_path: Path, to: Format) -> None:
    data = written(coco, tmp_path / "out", to)
    plain = build_train_loader(data, [], LoaderOptions(batch_size=4, num_workers=0), seed=3)
    loader = build_train_loader(data, [], LoaderOptions(batch_size=4, num_workers=2), seed=3)
    workers, here = iter(loader), iter(plain)
    for _ in range(4):
        assert torch.equal(next(here).images, next(workers).images)
    workers.close()
    copy = pickle.loads(pickle.dumps(data))
    assert copy.load_image(5).tobytes() == coco.load_image(5).tobytes()
    assert copy.image_size(0) == coco.image_size(0)
    preparation = Preparation(Subset(data, [7, 2], "two"), [], cached=False)
    preparation.cache = ImageCache(tmp_path / "index", tmp_path / "pixels", 10**6)
    assert preparation.image(1)[0].tobytes() == coco.load_image(2).tobytes()
    assert preparation.cache.used_bytes() == 96 * 96 * 3
    assert preparation.image(1)[0].tobytes() == coco.load_image(2).tobytes()
    assert preparation.cache.used_bytes() == 96 * 96 * 3


@pytest.mark.parametrize(("to", "module"), [("parquet", parquet), ("webdataset", web_shards)])
def test_the_index_is_built_once_until_a_shard_changes(
    coco: CocoDataset, tmp_path: Path, to: Format, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(coco, tmp_path / "out", to)
    built = []
    build = module.index_shards
    monkeypatch.setattr(module, "index_shards", lambda *given: built.append(1) or build(*given))
    root = str(tmp_path / "out")
    assert PARTS[to](root=root, split="train").content_hash() == data.content_hash()
    Path(data.shards[1]).unlink()
    assert len(PARTS[to](root=root, split="train")) < len(data)
    assert len(built) == 1
    for path in (tmp_path / "cache/shards").iterdir():
        path.write_bytes(b"cut off")
    PARTS[to](root=root, split="train")
    assert len(built) == 2


def test_order_by_windows_is_a_function_of_seed_and_position() -> None:
    group = np.repeat(np.arange(40), 5)
    layout = Layout(group, np.full(40, 100), window=800)
    order = layout.permutation(1, 0)
    assert sorted(order.tolist()) == list(range(200))
    windows = [set(group[order[i : i + 40]].tolist()) for i in range(0, 200, 40)]
    assert all(len(w) == 8 for w in windows), "each window reads its eight groups, and no other"
    assert order[:40].tolist() != sorted(order[:40].tolist(), key=lambda i: group[i]), "mixed within the window"
    assert np.array_equal(order, layout.permutation(1, 0))
    assert not np.array_equal(order, layout.permutation(1, 1))
    assert not np.array_equal(order, layout.permutation(2, 0))
    assert np.array_equal(Layout(group, np.full(40, 100), 4000).permutation(1, 2), permutation(1, 2, 200))


@pytest.mark.parametrize("start", [0, 3, 57])
def test_resuming_and_ranks_share_the_order_by_windows(start: int) -> None:
    layout = Layout(np.repeat(np.arange(40), 5), np.full(40, 100), window=800)

    def keys(rank: int, world: int, first: int, steps: int) -> list[Any]:
        batches = iter(TrainBatches(length=200, batch_size=8, seed=4, start_step=first, rank=rank, world_size=world,
                                    micro_batches=1, layout=layout))  # fmt: skip
        return [next(batches) for _ in range(steps)]

    whole = keys(0, 1, 0, start + 30)[start:]
    assert keys(0, 1, start, 30) == whole
    for one, even, odd in zip(whole, keys(0, 2, start, 30), keys(1, 2, start, 30), strict=True):
        assert (one[::2], one[1::2]) == (even, odd)


def test_memory_is_bounded_by_the_window(coco: CocoDataset, tmp_path: Path) -> None:
    data = written(coco, tmp_path / "out", "parquet")
    data.groups.window = 60_000
    for i in [*range(14), *range(14)]:
        assert data.load_image(i).tobytes() == coco.load_image(i).tobytes()
        kept = data.groups._kept
        assert len(kept) == 1 or sum(group.nbytes for group in kept.values()) <= 60_000


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members:
            writer.add_member(file, name, content)
    return path


def picture(size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "jpeg")
    return file.getvalue()


WORDS = [
    "objects",
    "annotations",
    "bbox",
    "category",
    "area",
    "iscrowd",
    "width",
    "height",
    "image_id",
    "file_name",
    "?",
]
ONE = {"objects": [{"bbox": [1, 2, 30, 20], "category": "cat"}]}


@pytest.mark.parametrize(
    ("row", "options"),
    [
        (ONE, {}),
        ({"annotations": {"box": [[1, 2, 30, 20]], "class": [1]}}, {"labels": ["dog", "cat"]}),
        ({**ONE, "width": 60, "height": 40.0, "image_id": "17"}, {}),
    ],
)
def test_dialects_of_the_json_files(tmp_path: Path, row: dict[str, Any], options: dict[str, Any]) -> None:
    tar(tmp_path / "x.tar", ("d/.hidden", b""), ("d/a.b.jpg", picture()), ("d/a.json", json.dumps(row).encode()),
        ("e.JPG", picture()), ("e.json", b'{"objects": []}'))  # fmt: skip
    data = WebDataset(root=str(tmp_path / "x.tar"), **options)
    assert data.classes.names == ("cat",)
    assert data.records.sizes.tolist() == [[40, 60]] * 2
    assert data.records.annotation(0).boxes.tolist() == [[1, 2, 31, 22]]
    assert [len(data.records.annotation(i).boxes) for i in range(2)] == [1, 0]


def test_boxes_that_seem_to_be_two_corners_are_suspect(tmp_path: Path) -> None:
    row = {"objects": [{"bbox": [30, 20, 58, 38], "category": "cat"}]}
    tar(tmp_path / "x.tar", ("a.jpg", picture()), ("a.json", json.dumps(row).encode()))
    assert WebDataset(root=str(tmp_path / "x.tar")).problems.count(SUSPECT) == 1


def json_of(**change: Any) -> bytes:
    return json.dumps({**ONE, **change}).encode()


BAD = {
    "no json": [("a.jpg", picture())],
    "no image": [("a.json", json_of())],
    "two images": [("a.jpg", picture()), ("a.png", picture()), ("a.json", json_of())],
    "not json": [("a.jpg", picture()), ("a.json", b"{")],
    "a list": [("a.jpg", picture()), ("a.json", b"[]")],
    "three numbers": [("a.jpg", picture()), ("a.json", json_of(objects=[{"bbox": [1, 2, 3], "category": "cat"}]))],
    "text in a box": [("a.jpg", picture()), ("a.json", json_of(objects=[{"bbox": ["1", 2, 3, 4], "category": "c"}]))],
    "class by number": [("a.jpg", picture()), ("a.json", json_of(objects=[{"bbox": [1, 2, 3, 4], "category": 3}]))],
    "no class": [("a.jpg", picture()), ("a.json", json_of(objects=[{"bbox": [1, 2, 3, 4]}]))],
    "size in text": [("a.jpg", picture()), ("a.json", json_of(width="60", height=40))],
    "no objects key": [("a.jpg", picture()), ("a.json", b'{"caption": "a cat"}')],
    "twice": [("a.jpg", picture()), ("a.json", json_of()), ("a.json", json_of(objects=[]))],
    "endless size": [("a.jpg", picture()), ("a.json", json_of().replace(b"}]", b'}], "width": 1e999'))],
    "long number": [("a.jpg", picture()), ("a.json", json_of().replace(b"30", b"9" * 400))],
    "objects are text": [("a.jpg", picture()), ("a.json", json_of(objects="cat"))],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_named(tmp_path: Path, case: str, refuses: Refuses) -> None:
    path = tar(tmp_path / "x.tar", *BAD[case])
    with refuses(ValueError):
        WebDataset(root=str(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5))
def test_any_mapping_is_an_entry_or_a_named_error(row: dict[str, Any]) -> None:
    problem = ""
    try:
        entry = entry_of(row, "x.tar/a.json", 0, 0, 0, "a.jpg", ["cat"], picture)
    except ValueError as error:
        problem = str(error)
    if problem:
        assert problem.startswith("x.tar/a.json")
    else:
        assert len(entry.boxes) == len(entry.names) == len(entry.is_ignore)
        assert all(len(box) == 4 for box in entry.boxes)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_of_a_tar_file_are_read_or_named(flips: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = tar(Path(folder) / "x.tar", ("a.json", json_of()), ("a.jpg", picture()))
        content = bytearray(path.read_bytes())
        for place, value in flips:
            content[place] = value
        path.write_bytes(content)
        problem, entries = "", []
        try:
            entries = list(web_shards.index_shards([str(path)], None))
        except ValueError as error:
            problem = str(error)
        assert not problem or str(path) in problem
        assert len(entries) <= 1


@pytest.mark.parametrize("count", [100, 600, 1300, 2560])
def test_a_cut_off_tar_file_is_refused_wherever_it_ends(tmp_path: Path, count: int) -> None:
    path = tar(tmp_path / "x.tar", ("a.json", json_of()), ("a.jpg", picture()))
    path.write_bytes(path.read_bytes()[:count])
    with pytest.raises(ValueError, match=r"x\.tar: (not a tar file|the tar file ends too early)"):
        WebDataset(root=str(path))


def test_files_that_are_something_else(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "x.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    with refuses(ValueError):
        WebDataset(root=str(tmp_path / "x.tar"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    with refuses(ValueError):
        ParquetDataset(root=str(tmp_path / "x.parquet"))
    with refuses(FileNotFoundError):
        ParquetDataset(root=str(tmp_path), split="train")
    with refuses(FileNotFoundError):
        WebDataset(root=str(tmp_path / "none"))


def test_a_missing_column_lists_those_that_there_are(coco: CocoDataset, tmp_path: Path, refuses: Refuses) -> None:
    written(coco, tmp_path / "out", "parquet")
    with refuses(ValueError):
        ParquetDataset(root=str(tmp_path / "out"), objects="boxes")


def test_a_damaged_image_in_a_shard_names_shard_and_member(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", ("a.jpg", picture()[:300]), ("a.json", json_of(width=60, height=40)))
    with pytest.raises(ValueError, match=r"x\.tar/a\.jpg: not a readable image"):
        WebDataset(root=str(path)).load_image(0)


def test_links_into_shards_are_refused(coco: CocoDataset, tmp_path: Path, refuses: Refuses) -> None:
    with refuses(ValueError):
        convert({"train": coco}, tmp_path / "out", "webdataset", images="hardlink")


@pytest.mark.slow
def test_hugging_faces_library_reads_the_parquet_files(
    coco: CocoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    convert({"train": coco}, tmp_path / "out", "parquet")
    files = str(tmp_path / "out/data/*.parquet")
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert len(table) == len(coco)
    assert table[3]["image"].convert("RGB").tobytes() == coco.load_image(3).tobytes()
    feature = table.features["objects"]["category"].feature
    assert tuple(feature.names) == coco.classes.names
    boxes = np.array(table[3]["objects"]["bbox"])
    start, end = coco.records.truth.ends[2:4]
    assert np.array_equal(boxes, coco.records.truth.boxes[start:end])
    # Written by that library, with its own row groups and its own words for the classes.
    table.to_parquet(str(tmp_path / "theirs.parquet"), batch_size=5)
    data = ParquetDataset(root=str(tmp_path / "theirs.parquet"))
    assert data.classes.names == coco.classes.names
    assert data.records.content_hash() == coco.records.content_hash()
