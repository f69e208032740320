"""A data set of any format into another one, held against what can be read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from detkit.data.build import real_paths
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.image_names import top_folder
from detkit.data.datasets.problems import Problems
from detkit.data.reading import quiet_problems
from detkit.data.writers.boxes import Ignored, WrittenBox, images_of, object_boxes, usable_boxes
from detkit.data.writers.coco import write_coco
from detkit.data.writers.csv import write_csv
from detkit.data.writers.kinds import SHARED
from detkit.data.writers.names import class_names, with_file_names
from detkit.data.writers.shards import WRITERS as SHARD_WRITERS
from detkit.data.writers.target import Images, Written
from detkit.data.writers.voc import write_voc
from detkit.data.writers.yolo import split_keys, write_yolo
from detkit.registry import DATASETS
from detkit.utils.console import printable
from detkit.utils.types import Tree

Format = Literal["coco", "csv", "parquet", "voc", "webdataset", "yolo"]


def convert(
    splits: Mapping[str, DetectionDataset],
    folder: str | os.PathLike[str],
    to: Format,
    *,
    images: Images = "copy",
    ignored: Ignored = "drop",
) -> Written:
    """Writes data sets in a format, all of it or nothing.

    Args:
        splits: data sets by the names of their splits; a slash of a name is written as `_`.
        folder: a new or empty one.
        to: the format.
        images: how images come into the folder; reference leaves them where they are (coco and csv).
        ignored: what becomes of ignore regions in yolo, which has none.

    Raises ValueError for a folder that is not empty, and for what a format can't hold at all.
    """
    writers: dict[str, Callable[..., Written]] = {
        "coco": write_coco,
        "csv": write_csv,
        "voc": write_voc,
        "yolo": partial(write_yolo, ignored=ignored),
        **SHARD_WRITERS,
    }
    if to == "yolo":
        split_keys(splits)  # an error has the names of the input
    splits = with_file_names(splits)
    written = writers[to](splits, Path(folder), images=images)
    count_shared(splits, written.problems)
    for dataset in splits.values():
        written.problems.merge(dataset.unread(range(len(dataset))))
    for split, dataset in splits.items():
        check_written(dataset, written.nodes[split], to, ignored)
    return written


def count_shared(splits: Mapping[str, DetectionDataset], problems: Problems) -> None:
    """Counts images that are in several splits; each of these gets a copy, so that nobody sees it any more."""
    seen: dict[str, str] = {}
    for split, dataset in splits.items():
        for path in real_paths(dataset):
            if seen.setdefault(path, split) != split:
                problems.add(SHARED, f"{printable(path)}: {seen[path]} and {split}")


def check_written(dataset: DetectionDataset, node: Tree, to: Format, ignored: Ignored) -> None:
    """Reads a written split back; RuntimeError if it has other images, classes or boxes than were to be written."""
    with quiet_problems(everything=True):
        copy: DetectionDataset = DATASETS.build(node)
    texts = class_names({"": dataset}, Problems())
    keep = partial(object_boxes, ignored=ignored) if to == "yolo" else usable_boxes
    if len(copy) != len(dataset):
        raise RuntimeError(f"{copy.name}: {len(dataset)} images were written, {len(copy)} are read back")
    for before, after in zip(images_of(dataset), images_of(copy), strict=True):
        wanted = [(texts[dataset.classes.names[b.label]], b) for _, b in keep(before, Problems())]
        got = [(copy.classes.names[b.label], b) for b in after.boxes]
        if len(wanted) != len(got) or not all(is_equal(a, b, to) for a, b in zip(wanted, got, strict=True)):
            raise RuntimeError(f"{copy.name}: {after.path}: {wanted} was written, {got} is read back")


def is_equal(a: tuple[str, WrittenBox], b: tuple[str, WrittenBox], to: Format) -> bool:
    """Whether two boxes are the same but for what the format rounds: VOC and CSV have whole pixels."""
    tolerance = [1.0 if to in ("csv", "voc") and 0 < side <= 1 else 1e-6 for side in (2, 2, *a[1].xywh[2:])]
    close = np.abs(np.subtract(a[1].xywh, b[1].xywh)) <= np.multiply(tolerance, np.maximum(1, np.abs(a[1].xywh)))
    is_ignore = a[1].is_ignore and to != "yolo"
    return a[0] == b[0] and is_ignore == b[1].is_ignore and bool(close.all())


def check_apart(folder: Path, data: Path, splits: Mapping[str, DetectionDataset]) -> None:
    """Raises ValueError if a folder lies in that of the input, or among its images."""
    inputs = [os.path.realpath(data)] if data.is_dir() else []
    inputs += sorted({os.path.realpath(top_folder(d)) for d in splits.values() if d.reads_files})
    target = os.path.realpath(folder)
    for place in inputs:
        if target == place or target.startswith(place.rstrip(os.sep) + os.sep):
            raise ValueError(
                f"folder: {printable(folder)} lies in {printable(place)}, which is read: choose another one"
            )


def describe_lost(written: Written) -> list[str]:
    """What the format can't hold, and what reading back showed."""
    rest = ", but for what is listed above" if written.problems else ""
    return [*written.problems.lines(), f"read back: the same images, classes and boxes{rest}"]
