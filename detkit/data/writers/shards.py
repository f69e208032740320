"""Shards: Parquet files as of the Hugging Face Hub, and tar files as of WebDataset. Images go in as their files are."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.parquet import HUGGING_FACE, METADATA
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.web_shards import CLASS_FILE
from detkit.data.writers.boxes import WrittenImage, count_lost_ids, images_of, usable_boxes
from detkit.data.writers.names import image_names
from detkit.data.writers.target import Images, Written, all_or_nothing, with_progress
from detkit.structures import ClassMap
from detkit.utils.types import Tree

SHARD_BYTES = 256 * 2**20
"""Of images, after which the next shard begins."""
GROUP_BYTES = 4 * 2**20
"""Of images in a group of rows, which is read at once."""


def write_webdataset(splits: Mapping[str, DetectionDataset], folder: Path, *, images: Images = "copy") -> Written:
    """Writes data sets as tar files SPLIT/000000.tar with an image and a JSON file for each sample.

    Args:
        splits: data sets by the names of their splits.
        folder: a new or empty one.
        images: must be copy, as shards hold the images.
    """
    check_copy(images)
    problems = Problems()
    nodes: dict[str, Tree] = {}
    with all_or_nothing(folder) as new:
        for split, dataset in splits.items():
            (new / split).mkdir()
            classes = {"names": list(dataset.classes.names), "ids": list(dataset.classes.ids)}
            (new / split / CLASS_FILE).write_text(json.dumps(classes), encoding="utf-8")
            samples = samples_of(dataset, split, problems)
            for number, shard in enumerate(in_parts(samples, SHARD_BYTES)):
                with tarfile.open(new / split / f"{number:06d}.tar", "w") as file:
                    for index, name, content, row in shard:
                        add_member(file, f"{index:08d}{PurePosixPath(name).suffix.lower()}", content)
                        add_member(file, f"{index:08d}.json", json.dumps(named(row, dataset.classes)).encode())
            nodes[split] = {"type": "WebDataset", "root": str(folder / split)}
    return Written(nodes, problems)


def write_parquet(splits: Mapping[str, DetectionDataset], folder: Path, *, images: Images = "copy") -> Written:
    """Writes data sets as Parquet files data/SPLIT-00000-of-00001.parquet, which Hugging Face's `datasets` reads, too.

    Args:
        splits: data sets by the names of their splits.
        folder: a new or empty one.
        images: must be copy, as shards hold the images.
    """
    check_copy(images)
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise ImportError("Parquet files need pyarrow: pip install 'detkit[parquet]'") from None
    problems = Problems()
    nodes: dict[str, Tree] = {}
    with all_or_nothing(folder) as new:
        (new / "data").mkdir()
        for split, dataset in splits.items():
            schema = parquet_schema(dataset.classes)
            samples = samples_of(dataset, split, problems)
            paths: list[Path] = []
            for shard in in_parts(samples, SHARD_BYTES):
                paths.append(new / "data" / f"{split}-{len(paths)}.tmp")
                with ParquetWriter(paths[-1], schema, compression="none", use_dictionary=False) as file:
                    for group in in_parts(iter(shard), GROUP_BYTES):
                        rows = [{"image": {"bytes": c, "path": name}, **row} for _, name, c, row in group]
                        file.write_table(pyarrow.Table.from_pylist(rows, schema=schema), row_group_size=len(rows))
            for number, path in enumerate(paths):
                path.rename(path.with_name(f"{split}-{number:05d}-of-{len(paths):05d}.parquet"))
            nodes[split] = {"type": "ParquetDataset", "root": str(folder), "split": split}
    return Written(nodes, problems)


WRITERS: Mapping[str, Callable[..., Written]] = {"parquet": write_parquet, "webdataset": write_webdataset}
Sample = tuple[int, str, bytes, Tree]
"""Number, name and file of an image, and its row in a table."""


def check_copy(images: Images) -> None:
    """Raises ValueError for links and references."""
    if images != "copy":
        raise ValueError(f"--images {images}: shards hold the images themselves: choose copy")


def samples_of(dataset: DetectionDataset, split: str, problems: Problems) -> Iterator[Sample]:
    names = image_names(dataset, problems)
    for i, image in enumerate(with_progress(images_of(dataset), len(dataset), split)):
        count_lost_ids(image, problems)
        yield i, names[i], encoded_image(image), row_of(image, names[i], problems)


def encoded_image(image: WrittenImage) -> bytes:
    """The bytes of an image's file; a PNG of what its data set draws."""
    content = image.content()
    return content if isinstance(content, bytes) else Path(content).read_bytes()


def row_of(image: WrittenImage, name: str, problems: Problems) -> Tree:
    """What is written of an image besides its pixels; classes by their numbers."""
    height, width = image.size
    boxes = [box for _, box in usable_boxes(image, problems)]
    return {
        "image_id": image.image_id,
        "file_name": name,
        "width": width if width > 0 else None,
        "height": height if height > 0 else None,
        "objects": {
            "bbox": [list(box.xywh) for box in boxes],
            "category": [box.label for box in boxes],
            "area": [box.area for box in boxes],
            "iscrowd": [box.is_ignore for box in boxes],
        },
    }


def named(row: Tree, classes: ClassMap) -> Tree:
    """The row with classes by their names."""
    names = [classes.names[label] for label in row["objects"]["category"]]
    return {**row, "objects": {**row["objects"], "category": names}}


def in_parts(samples: Iterator[Sample], limit: int) -> Iterator[list[Sample]]:
    """Lists of samples whose images have `limit` bytes or more together; the last one may have less."""
    part: list[Sample] = []
    size = 0
    for sample in samples:
        part.append(sample)
        size += len(sample[2])
        if size >= limit:
            yield part
            part, size = [], 0
    if part:
        yield part


def add_member(file: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file whose header depends on nothing but name and size."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    file.addfile(member, io.BytesIO(content))


def parquet_schema(classes: ClassMap) -> Any:
    """Columns and their types, with the names of the classes in the metadata for detkit and for `datasets`."""
    import pyarrow as pa

    objects = pa.struct(
        [
            ("bbox", pa.list_(pa.list_(pa.float64()))),
            ("category", pa.list_(pa.int64())),
            ("area", pa.list_(pa.float64())),
            ("iscrowd", pa.list_(pa.bool_())),
        ]
    )
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    whole = [(name, pa.int64()) for name in ("width", "height")]
    columns = [("image", image), ("image_id", pa.int64()), ("file_name", pa.string()), *whole, ("objects", objects)]
    metadata = {
        METADATA: json.dumps({"names": list(classes.names), "ids": list(classes.ids)}),
        HUGGING_FACE: json.dumps({"info": {"features": hugging_face_features(classes)}}),
    }
    return pa.schema(columns, metadata=metadata)


def hugging_face_features(classes: ClassMap) -> Tree:
    """The columns in the words of Hugging Face's `datasets`."""

    def value(dtype: str) -> Tree:
        return {"dtype": dtype, "_type": "Value"}

    def sequence(feature: Tree) -> Tree:
        return {"feature": feature, "_type": "Sequence"}

    return {
        "image": {"_type": "Image"},
        "image_id": value("int64"),
        "file_name": value("string"),
        "width": value("int64"),
        "height": value("int64"),
        "objects": {
            "bbox": sequence(sequence(value("float64"))),
            "category": sequence({"names": list(classes.names), "_type": "ClassLabel"}),
            "area": sequence(value("float64")),
            "iscrowd": sequence(value("bool")),
        },
    }
