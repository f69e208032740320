"""Images that are no files of their own: limits, copies and checks hold for them as for files."""

from __future__ import annotations

import io
import json
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.cli import main
from detkit.data.build import open_images
from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.images import ImageOptions, upright_size
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.doctor.facts import gather
from detkit.data.scan import check_image
from detkit.data.writers.convert import Format, convert
from detkit.registry import DATASETS

SHARDS: list[Format] = ["parquet", "webdataset"]
READERS = ["parquet", "webdataset", "hugging face"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_CACHE", str(tmp_path / "cache"))


def encoded(kind: str, size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels by its header, that ends soon after."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100_000) + b"IDAT" + b"x" * 50


def coco_of(folder: Path, files: dict[str, bytes], *, sizes: bool = False) -> CocoDataset:
    """A COCO set of files with one box each, sizes stated or not."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    for i, (name, data) in enumerate(files.items(), start=1):
        (folder / "images" / name).write_bytes(data)
        stated = {"width": 60, "height": 40} if sizes else {}
        content["images"].append({"id": i, "file_name": name, **stated})
        content["annotations"].append({"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 20, 30]})
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    return CocoDataset(annotations=str(folder / "a.json"), images=str(folder / "images"))


def in_shards(reader: str, folder: Path, files: dict[str, bytes]) -> DetectionDataset:
    """The files in shards, without stated sizes."""
    if reader == "hugging face":
        hf: Any = pytest.importorskip("datasets")
        rows = [
            {"image": {"bytes": data, "path": name}, "objects": {"bbox": [[1.0, 2.0, 20.0, 30.0]], "category": ["a"]}}
            for name, data in files.items()
        ]
        hf.disable_progress_bars()
        hf.Dataset.from_list(rows).save_to_disk(folder / "out")
        saved: DetectionDataset = DATASETS.build({"type": "HuggingFaceDataset", "root": str(folder / "out")})
        return saved
    node = convert({"train": coco_of(folder / "in", files)}, folder / "out", reader).nodes["train"]  # type: ignore[arg-type]
    data: DetectionDataset = DATASETS.build(node)
    return data


@pytest.mark.parametrize("reader", READERS)
def test_too_many_megapixels_are_refused_in_every_way_to_read(tmp_path: Path, reader: str) -> None:
    data = in_shards(reader, tmp_path, {"a.png": encoded("png"), "b.png": bomb()})
    for limit, bad in ((180.0, [1]), (0.002, [0, 1])):
        data.image_options = ImageOptions(max_megapixels=limit)
        for i in bad:
            for read in (data.load_image, data.image_size, lambda i: data.load_scaled(i, lambda h, w: (8, 8))):
                with pytest.raises(ValueError, match="megapixels"):
                    read(i)
        gathered = gather(data, "")
        assert sorted(gathered.scan.bad) == bad
        assert all("data.images.max_megapixels" in why for why in gathered.scan.bad.values())


def test_the_size_of_a_bomb_is_known_without_decoding_it() -> None:
    assert upright_size(bomb(), name="a.png") == (60_000, 60_000)
    assert upright_size(bomb()[:20], name="a.png") == (-1, -1)


@pytest.mark.parametrize("reader", ["parquet", "webdataset"])
def test_the_limit_holds_in_the_verbs(tmp_path: Path, reader: Format, capsys: pytest.CaptureFixture[str]) -> None:
    coco = coco_of(tmp_path / "in", {"a.png": encoded("png")}, sizes=True)
    convert({"train": coco, "val": coco}, tmp_path / "out", reader)
    config = tmp_path / "c.yaml"
    config.write_text(f"_base_: quickstart\ndata:\n  root: {tmp_path / 'out'}\n")
    assert main(["data", "check", str(config), "data.images.max_megapixels=0.002"]) == 1
    assert "the limit is 0.002" in capsys.readouterr().out


@pytest.mark.parametrize("through", SHARDS)
@pytest.mark.parametrize("to", ["coco", "voc", "yolo", "csv", *SHARDS])
def test_images_of_shards_are_written_byte_for_byte(tmp_path: Path, through: Format, to: Format) -> None:
    files = {"a.jpg": encoded("jpeg"), "b.png": encoded("png"), "c.webp": encoded("webp")}
    node = convert({"train": coco_of(tmp_path / "in", files)}, tmp_path / "shards", through).nodes["train"]
    written = convert({"train": DATASETS.build(node)}, tmp_path / "out", to)
    after: DetectionDataset = DATASETS.build(written.nodes["train"])
    sources = [after.image_source(i) for i in range(3)]
    assert [s if isinstance(s, bytes) else Path(s).read_bytes() for s in sources] == list(files.values())
    assert [after.records.file_name(i) for i in range(3)] == list(files)


def test_an_image_without_a_name_gets_the_suffix_of_its_content(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table
    from pyarrow.parquet import write_table

    objects = {"bbox": [[1.0, 2.0, 20.0, 30.0]], "category": ["a"]}
    rows = [{"image": {"bytes": encoded(kind)}, "objects": objects} for kind in ("jpeg", "png", "webp")]
    write_table(Table.from_pylist(rows), tmp_path / "train.parquet")
    data: DetectionDataset = DATASETS.build({"type": "ParquetDataset", "root": str(tmp_path / "train.parquet")})
    convert({"train": data}, tmp_path / "out", "coco")
    images = sorted((tmp_path / "out/train").iterdir())
    assert [path.suffix for path in images] == [".jpg", ".png", ".webp"]
    assert [path.read_bytes() for path in images] == [row["image"]["bytes"] for row in rows]


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_image_of_a_shard_is_found_before_training(tmp_path: Path, reader: str) -> None:
    good = encoded("jpeg", (640, 480))
    data = in_shards(reader, tmp_path, {"a.jpg": good, "b.jpg": good[:-2000]})
    with pytest.raises(ValueError, match=r"1 of 2 images can't be used"):
        open_images(data, "train", early=True)
    data.image_options = ImageOptions(bad_images="skip")
    assert len(open_images(data, "train")) == 1


def test_drawn_images_are_not_opened_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ShapesDataset(num_images=2)
    monkeypatch.setattr(ShapesDataset, "load_image", lambda self, index: 1 / 0)
    assert open_images(data, "train", early=True) is data


def test_a_group_of_rows_is_read_once_for_all_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = in_shards("parquet", tmp_path, {f"{k}.png": encoded("png") for k in range(5)})
    reads: list[int] = []
    original = data.groups.read_rows
    monkeypatch.setattr(data.groups, "read_rows", lambda *place: reads.append(1) or original(*place))
    gather(data, "")
    assert len(reads) == 1


def test_repair_of_an_image_of_a_subset_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = encoded("jpeg", (640, 480))
    coco = coco_of(tmp_path / "in", {"a.jpg": good, "b.jpg": good[:-2000]})
    coco.image_options = ImageOptions(bad_images="repair")
    data = Subset(coco, [1, 0], "half")
    assert check_image(data, 0)[1]
    with caplog.at_level(logging.WARNING, logger="detkit"):
        assert open_images(data, "train") is data
    assert "repaired (data.images.bad_images: repair)" in caplog.text
