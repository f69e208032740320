"""Data sets of the library `datasets`: saved ones, Parquet files with an image column, and those of the hub."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_formats import BoxFormat
from detkit.data.datasets.entries import size_at
from detkit.data.datasets.found import FoundData, Place, canonical_split, named_splits, walk
from detkit.data.datasets.image_files import check_inside
from detkit.data.datasets.images import read_any_size
from detkit.data.datasets.list_entries import (
    BOX_KEYS,
    LABEL_KEYS,
    OBJECT_KEYS,
    EntrySettings,
    label_names,
    objects_of,
    ordered_classes,
    plain,
    with_unique_ids,
)
from detkit.data.datasets.parquet_file import needs_library
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import shorten_list
from detkit.utils.types import Tree, Value

MARKERS = ("dataset_dict.json", "state.json")
"""Files of a folder that `save_to_disk` wrote: of several splits, of one."""
ROWS = 256
"""Rows that are read at a time."""
HINT = "pip install 'detkit[datasets]'"


@DATASETS.register()
class HuggingFaceDataset(DetectionDataset):
    """A data set of Hugging Face's `datasets` with a column of images and one of objects (bbox and category).

    Boxes are x, y, width, height in pixels, as in most of these sets, unless `box_format` says otherwise. Class names
    come from the features (ClassLabel). Images stay in their files and are decoded when they are needed; those
    that a row only names must be below `root`, unless `data.images.outside` allows others.

    Args:
        root: folder of `save_to_disk`, Parquet file, or folder of Parquet files.
        name: of a data set on the hub, instead of `root`, as in "cppe-5"; it is downloaded once.
        split: name of a split; null takes the only one.
        image_column: column of the images; null takes the only one with images, or `image`.
        objects_column: column of the objects; null takes `objects`, `annotations` or columns of boxes and labels.
        box_format: notation of the boxes; null takes bbox as x, y, width, height and `boxes` as two corners.
        relative: whether boxes are in fractions of the image.
        names: classes of the numbers 0, 1, 2 ...; null takes the names of the features.
        class_names: the classes and their order; null takes all names of the features.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        marker = next((m for m in MARKERS if (place.path / m).is_file()), None)
        node: Tree = {"type": "HuggingFaceDataset", "root": str(place.path)}
        if marker is None:
            return find_parquet(place, node)
        names = saved_splits(place.path) if marker == MARKERS[0] else []
        nodes = {split: {**node, "split": name} for split, name in zip(named_splits(names), names, strict=True)}
        return FoundData("Hugging Face", f"its {marker}", nodes or {"all": node})

    def __init__(
        self,
        *,
        root: PathStr | None = None,
        name: str | None = None,
        split: str | None = None,
        image_column: str | None = None,
        objects_column: str | None = None,
        box_format: BoxFormat | None = None,
        relative: bool = False,
        names: list[str] | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        table = open_table(root, name, split)
        title = f"{root or name}" if split is None else f"{root or name} ({split})"
        self.column = image_column_of(table, image_column, title)
        names = label_names(dict(table.features), objects_column) if names is None else names
        options = EntrySettings(box_format, relative, names)
        # Rows as Arrow has them: neither are images decoded nor numbers copied.
        self.table, problems = table.with_format("arrow"), Problems()
        records = list(read_rows(self.table, self.column, objects_column, title, options, problems))
        if not records:
            raise ValueError(f"{title}: it has no rows")
        # A record's path is the place of its image in the table.
        self.reads_files = False
        self.finish_images(
            title, with_unique_ids(records), folder=str(root or ""), problems=problems, bad_boxes=bad_boxes,
            keep_empty=keep_empty, unlisted=False,
            classes=ordered_classes([n for r in records for n in r.names], options),
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip

    def image_content(self, index: int) -> bytes:
        cell = self.table[row_of(self.records.path(index))][self.column][0].as_py()
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        if not self.image_options.outside:
            check_inside([cell["path"]], self.roots, self.name)
        return Path(cell["path"]).read_bytes()


def find_parquet(place: Place, node: Tree) -> FoundData | None:
    """Parquet files that `ParquetDataset` does not read; None if there are none."""
    files = parquet_files(place.path) if place.is_folder or place.path.suffix.lower() == ".parquet" else {}
    first = next((paths[0] for paths in files.values()), None)
    if first is None or not needs_library(first):
        return None
    nodes = {"all": node} if list(files) == ["all"] else {name: {**node, "split": name} for name in files}
    return FoundData("Hugging Face", f"the columns of {first.name}", nodes)


def library() -> Value:
    """The module `datasets`; ValueError that says how to install it."""
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(f"data sets of Hugging Face need the package datasets: {HINT} ({error})") from None


def open_table(root: str | None, name: str | None, split: str | None) -> Value:
    """The split as a `datasets.Dataset`; errors name what is there instead."""
    if (root is None) == (name is None):
        raise ValueError("give either root, a folder or file, or name, a data set of the hub")
    if root is None:
        return choose(called(str(name), "load_dataset", name), split, str(name))
    path = Path(root)
    if not path.exists():
        raise FileNotFoundError(f"no data set {root}: there is no such file or folder")
    if any((path / marker).is_file() for marker in MARKERS):
        saved = called(root, "load_from_disk", root)
        return choose(saved, split, root) if isinstance(saved, dict) else saved
    files = {key: list(map(str, value)) for key, value in parquet_files(path).items()}
    if not files:
        raise ValueError(f"{root}: neither a saved data set (dataset_dict.json, state.json) nor Parquet files")
    data_files = {"train": choose(files, split, root)}
    return called(root, "load_dataset", "parquet", data_files=data_files, split="train")


def called(name: str, function: str, *arguments: Value, **options: Value) -> Value:
    """What a function of the library returns; ValueError that names the data set for whatever it raises."""
    module = library()
    try:
        return getattr(module, function)(*arguments, **options)
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{name}: datasets can't read it ({type(error).__name__}: {text})") from error


def choose(splits: Mapping[str, Value], split: str | None, name: str) -> Value:
    """The split of a name, or the only one; ValueError that lists the splits."""
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    fitting = [key for key in splits if key == split] or [key for key in splits if canonical_split(key) == split]
    if split is None or len(fitting) != 1:
        raise ValueError(f"{name}: it has the splits {shorten_list(list(splits))}: choose one with split")
    return splits[fitting[0]]


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Split -> Parquet files, by the names of files and folders; "all" for others."""
    files = [path / file for file in walk(path) if file.suffix.lower() == ".parquet"] if path.is_dir() else [path]
    splits: dict[str, list[Path]] = {}
    for file in files:
        folder = file.parent.name if file.parent != path else ""
        splits.setdefault(canonical_split(file.stem) or canonical_split(folder) or "all", []).append(file)
    return splits


def saved_splits(folder: Path) -> list[str]:
    """The splits that a saved data set lists; none if its list can't be read, which the reader reports."""
    try:
        content = json.loads((folder / MARKERS[0]).read_text(encoding="utf-8"))
        return [name for name in content["splits"] if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def image_column_of(table: Value, column: str | None, title: str) -> str:
    """The column of the images; ValueError if there is none, or which of several."""
    features = dict(table.features)
    images: list[str] = [name for name, feature in features.items() if is_image(feature)]
    if column is not None:
        images = [name for name in images if name == column]
    elif "image" in images:
        return "image"
    if len(images) != 1:
        known = shorten_list(list(features), 12)
        what = f"no column of images {column!r}" if column else f"{len(images) or 'no'} columns of images"
        raise ValueError(f"{title}: {what} among {known}: choose one with image_column")
    return images[0]


def is_image(feature: Value) -> bool:
    """Whether a column holds images: the feature `Image`, or its two parts."""
    return type(feature).__name__ == "Image" or (isinstance(feature, dict) and {"bytes", "path"} <= feature.keys())


def read_rows(
    table: Value, column: str, objects_column: str | None, title: str, options: EntrySettings, problems: Problems
) -> Iterator[ImageRecord]:  # fmt: skip
    """The record of each row. The image's file is read only where no columns state its size."""
    keys = {objects_column} if objects_column else {*OBJECT_KEYS, *BOX_KEYS, *LABEL_KEYS, "area", "bbox_mode"}
    if objects_column is not None and objects_column not in table.column_names:
        raise ValueError(f"{title}: no column {objects_column!r}, only {shorten_list(table.column_names, 12)}")
    wanted = [n for n in table.column_names if n in keys | {"height", "width", "image_id", "iscrowd"} and n != column]
    for start in range(0, len(table), ROWS):
        batch = table[start : start + ROWS]
        images = batch[column]
        for i, row in enumerate(batch.select(wanted).to_pylist()):
            number = start + i
            entry = {**row, "objects": row[objects_column]} if objects_column else row
            yield read_row(plain(entry), images[i], number, f"{title}: row {number}", options, problems)


def read_row(
    row: Tree, cell: Value, number: int, where: str, options: EntrySettings, problems: Problems
) -> ImageRecord:  # fmt: skip
    """The record of a row. cell: its image, as an Arrow scalar."""
    if not cell.is_valid or not (cell["path"].is_valid or cell["bytes"].is_valid):
        raise ValueError(f"{where}: it has no image")
    path = cell["path"].as_py() or f"{number:08d}"
    size = size_at(row, "height", "width")
    if size[0] < 0:
        content = cell["bytes"].as_py()
        size = read_any_size(path if content is None else content, name=where)
    objects = objects_of(row, where, size, options, problems)
    image_id = row.get("image_id")
    return ImageRecord(
        path=f"row {number}/{path.replace(chr(92), '/').rpartition('/')[2]}",
        boxes=objects.boxes,
        names=objects.names,
        size=size,
        is_ignore=objects.ignore,
        image_id=image_id if type(image_id) is int else None,
        area=objects.area,
        xywh=objects.xywh,
        source=f"row {number}",
    )


def row_of(path: str) -> int:
    """The row in the path of a record: "row 3/a.jpg"."""
    return int(path.partition("/")[0].removeprefix("row "))
