"""Parquet files with a column of images and one of their objects, as of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Interval

from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.list_entries import class_label_names, without_lists
from detkit.data.datasets.parquet_file import column_options, needs_library, open_parquet
from detkit.data.datasets.records import BadBoxes
from detkit.data.datasets.shard_files import Shards, Source, find_shards, find_splits, name_of
from detkit.data.datasets.shards import CLASSES, ShardDataset, ShardEntry, by_shard, cached, cached_index, entry_of
from detkit.data.seeding import Layout
from detkit.registry import DATASETS
from detkit.structures import ClassMap
from detkit.utils.console import printable, shorten_list

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MIB = 2**20
METADATA = b"detkit"
HUGGING_FACE = b"huggingface"
"""Keys of a file's metadata."""
FOOTERS = 16
"""Files whose metadata are kept in memory, as those of a remote one are two requests."""
Megabytes = Annotated[int, Interval(ge=1, le=1_000_000)]


@DATASETS.register()
class ParquetDataset(ShardDataset):
    """Images in Parquet files: a column of images (bytes, or structs of them) and one of their objects.

    Objects have `bbox` (x, y, width, height in pixels), `category` and, where there are any, `area` and `iscrowd`; the
    columns `width`, `height`, `image_id` and `file_name` are read if they are there. Images are read by groups of rows.
    A data set larger than `window` is shuffled by windows: the groups come in a random order, and the images of those
    that fit into a window are shuffled among each other. A smaller one is shuffled like any other data set.

    Args:
        root: a .parquet file, a folder of them, subfolders included, or a list; of this machine or an address (https://,
            s3://, hf://datasets/), from which only what is needed is read. Braces stand for several files, as in
            https://host/train-{000..009}.parquet; a web server (https://) lists no folders.
        split: of the files of a folder, those of this split by their names or folders, as train in
            train-00000-of-00002.parquet; null takes all.
        image: column of the images.
        objects: column of the objects.
        labels: names of the classes that are given by number, from 0; null takes those that the file declares.
        window: MiB of images that each loader process keeps, and among which the order is random.
        class_names: the classes and their order; null takes those that the files declare, or else all names in
            alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = (
            place.with_suffix(".parquet")
            if place.is_folder
            else [place.path] * (place.path.suffix.lower() == ".parquet")
        )
        if not files or needs_library(place.path / files[0]):
            return None
        found = find_splits(place, files, "Parquet", "ParquetDataset", f"the file {files[0].name}")
        columns = column_options(place.path / files[0])
        return replace(found, splits={split: {**node, **columns} for split, node in found.splits.items()})

    def __init__(
        self,
        *,
        root: Shards,
        split: str | None = None,
        image: str = "image",
        objects: str = "objects",
        labels: list[str] | None = None,
        window: Megabytes = 128,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        shards = find_shards(root, ".parquet", split)
        name = name_of(root, split)
        self.image_column, self.window = image, window * MIB
        classes = declared_classes(shards[0], objects)
        names = labels if labels is not None else list(classes.names) if classes else None
        key = {"image": image, "objects": objects, "labels": names}
        entries = cached_index(shards, key, lambda: index_shards(shards, image, objects, names))
        self.finish_shards(
            name, shards, entries, None if labels is not None else classes, bad_boxes=bad_boxes,
            keep_empty=keep_empty, class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip
        self.layout = self.find_layout()
        self.groups = RowGroups(self.sources, image, self.window)

    def find_layout(self) -> Layout:
        """Which images are in one group of rows, and how large the groups are."""
        pairs, group = np.unique(np.stack([self.shard, self.place], axis=1), axis=0, return_inverse=True)
        sizes = cached(self.sources, {"bytes": self.image_column}, lambda: shard_bytes(self.sources, self.image_column))
        return Layout(group.reshape(-1), np.array([sizes[s][g] for s, g in pairs.tolist()], np.int64), self.window)

    def image_content(self, index: int) -> bytes:
        group = self.groups.read(int(self.shard[index]), int(self.place[index]))
        content = group[int(self.part[index])].as_py()
        if not isinstance(content, bytes):
            raise ValueError(f"{self.records.path(index)}: the row has no image")
        return content


class RowGroups:
    """Groups of rows that were read last, as many as fit into a window. Copies of a data set in a process share them.

    Args:
        shards: the files.
        column: of the images.
        window: bytes that are kept.
    """

    def __init__(self, shards: Sequence[Source], column: str, window: int) -> None:
        self.shards, self.column, self.window = shards, column, window
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._footers: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_kept": OrderedDict(), "_footers": OrderedDict()}

    def read(self, shard: int, number: int) -> Any:
        """The images of a group of rows of a shard."""
        key = (shard, number)
        if key not in self._kept:
            self._kept[key] = self.read_rows(shard, number)
            while len(self._kept) > 1 and sum(group.nbytes for group in self._kept.values()) > self.window:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def read_rows(self, shard: int, number: int) -> Any:
        """The images of a group, from the file."""
        with open_parquet(self.shards[shard], self._footers.get(shard)) as file:
            self._footers[shard] = file.metadata
            self._footers.move_to_end(shard)
            while len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)
            return bytes_of(file.read_row_group(number, columns=[self.column], use_threads=False))


def shard_bytes(shards: Sequence[Source], image: str) -> list[list[int]]:
    """`group_bytes` of each file."""
    sizes = []
    for source in shards:
        with open_parquet(source) as file:
            sizes.append(group_bytes(file, image))
    return sizes


def group_bytes(file: ParquetFile, image: str) -> list[int]:
    """Bytes of the images of each group of rows."""
    metadata = file.metadata
    columns = [i for i in range(metadata.num_columns) if in_column(metadata.schema.column(i).path, image)]
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    return [sum(group.column(i).total_uncompressed_size for i in columns) for group in groups]


def in_column(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def bytes_of(table: Any) -> Any:
    """The column of bytes of a table with a single column, of bytes or of structs that have them."""
    import pyarrow

    column = table.column(0).combine_chunks()
    column = column.chunk(0) if isinstance(column, pyarrow.ChunkedArray) else column
    if pyarrow.types.is_struct(column.type):
        column = column.field("bytes")
    return column


def declared_classes(path: Source, objects: str) -> ClassMap | None:
    """The classes in the metadata of a file: detkit's, or the names of the Hugging Face feature `ClassLabel`."""
    with open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        if METADATA in metadata:
            content = json.loads(metadata[METADATA])
            return ClassMap(tuple(content["names"]), tuple(content["ids"]))
        columns = without_lists(json.loads(metadata.get(HUGGING_FACE, b"{}"))["info"]["features"][objects])
        names = class_label_names(next(columns[key] for key in CLASSES if key in columns))
    except (ValueError, LookupError, TypeError, StopIteration):
        return None
    return ClassMap(tuple(names), tuple(range(len(names)))) if names else None


def index_shards(shards: Sequence[Source], image: str, objects: str, labels: list[str] | None) -> Iterator[ShardEntry]:
    """The entries of all shards, in the order of files and rows; images are read only where no size is stated."""

    def index(number: int, source: Source) -> Iterator[ShardEntry]:
        with open_parquet(source) as file:
            yield from index_file(file, source, number, image, objects, labels)

    return by_shard(shards, index)


def index_file(
    file: ParquetFile, path: Source, number: int, image: str, objects: str, labels: list[str] | None
) -> Iterator[ShardEntry]:
    known = file.schema_arrow.names
    for name, key in ((image, "image"), (objects, "objects")):
        if name not in known:
            raise ValueError(f"{printable(path)}: no column {name!r}; it has {shorten_list(known)}: set `{key}`")
    check_images(file, image, path)
    stated = [n for n in ("width", "height", "image_id", "file_name") if n in known and n not in (image, objects)]
    leaves = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
    named = [f"{image}.path"] if f"{image}.path" in leaves else []
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group, columns=[*stated, objects, *named], use_threads=False)
        images = GroupImages(file, group, image)
        for i, row in enumerate(table.to_pylist()):
            inner = row.pop(image, None) if named else None
            name = (inner or {}).get("path") or f"{group:05d}-{i:05d}"
            row["objects"] = row.pop(objects)
            where = f"{path}, row {i} of group {group}"
            yield entry_of(row, where, number, group, i, str(name), labels, partial(images.content, i))


def check_images(file: ParquetFile, image: str, path: Source) -> None:
    """Raises ValueError unless a column has the bytes of images, or structs with them."""
    import pyarrow

    kind = file.schema_arrow.field(image).type
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_null(kind)):
        raise ValueError(
            f"{printable(path)}: the column {image!r} has no bytes of images, but {kind}: set `image`, or write images "
            "that are files of their own as a list of dicts (JSON lines), which ListDataset reads"
        )


class GroupImages:
    """The images of a group of rows, which are read only if one is needed."""

    def __init__(self, file: ParquetFile, group: int, image: str) -> None:
        self.file, self.group, self.image = file, group, image

    @cached_property
    def column(self) -> Any:
        return bytes_of(self.file.read_row_group(self.group, columns=[self.image], use_threads=False))

    def content(self, row: int) -> bytes:
        value = self.column[row].as_py()
        return value if isinstance(value, bytes) else b""
