"""Data sets and transforms of a config, for every verb that reads images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from detkit.config import Config
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import some
from detkit.data.scan import Scan, scan, usable
from detkit.data.transforms.base import Transform
from detkit.registry import DATASETS, TRANSFORMS

log = logging.getLogger("detkit")

SPLITS = ("train", "val")
SECONDS = {"train": 30.0, "val": 120.0}
"""At the start of a training: after so long, only headers are read of the images that are left."""
Share = Callable[[str, Any], list[Any]]
"""Everyone's value under a name, by rank."""


def build_dataset(config: Config, split: str) -> DetectionDataset:
    """The data set of `data.<split>`, with nothing left out.

    Raises FileNotFoundError that names the keys of its paths, where they were written and where they lead.
    """
    key = f"data.{split}.dataset"
    try:
        dataset: DetectionDataset = DATASETS.build(config.require(key))
    except FileNotFoundError as error:
        raise FileNotFoundError("\n  ".join([f"{key}: {error}", *config.explain_paths(key)])) from error
    dataset.image_options = config.options("data.images")
    return dataset


def usable_dataset(
    config: Config, split: str, *, share: Share | None = None, rank: int = 0, world_size: int = 1, early: bool = False
) -> DetectionDataset:
    """The data set of `data.<split>` as `data.images.bad_images` has it.

    share: hands out what each of several processes has found in its part of the images. early: with `error`, the
    images are opened now, as far as `SECONDS` goes, and not only when they are needed.
    """
    dataset = build_dataset(config, split)
    careful = dataset.image_options.bad_images != "error"
    if not careful and not (early and dataset.reads_files):
        return dataset
    mine = range(rank, len(dataset), world_size)
    found = scan(dataset, mine, threads=scan_threads(world_size), seconds=None if careful else SECONDS[split])
    if share is not None:
        parts = [Scan.from_json(part) for part in share(f"images of {split}", found.to_json())]
        found = Scan()
        for part in parts:
            found.add(part)
    if found.headers:
        log.info(
            "%s: decoded %d images, read the headers of %d more; `detkit data check` decodes all",
            dataset.name, found.decoded, found.headers,
        )  # fmt: skip
    return usable(dataset, found)


def scan_threads(world_size: int = 1) -> int:
    """Threads of a process for decoding images."""
    return max(1, min(16, (os.cpu_count() or 1) // world_size))


def build_transforms(config: Config, split: str) -> list[Transform]:
    """The transforms of `data.<split>`."""
    return [TRANSFORMS.build(node) for node in config.require(f"data.{split}.transforms")]


def shared_images(train: DetectionDataset, val: DetectionDataset) -> list[str]:
    """Files that are in both splits."""
    if not (train.reads_files and val.reads_files):
        return []
    return sorted(real_paths(train) & real_paths(val))


def warn_of_shared_images(train: DetectionDataset, val: DetectionDataset) -> str | None:
    """A warning, which is also given back, if validation images are trained on; None if all is well."""
    same = shared_images(train, val)
    if train.content_hash() == val.content_hash():
        text = "the validation split is the training split: its AP says how well the images are learnt by heart"
    elif same:
        names = some([path.rpartition("/")[2] for path in same])
        text = f"{len(same)} of {len(val)} validation images are training images, which makes AP too good: {names}"
    else:
        return None
    log.warning("%s: %s", " and ".join(dict.fromkeys((train.name, val.name))), text)
    return text


def real_paths(dataset: DetectionDataset) -> set[str]:
    """Its image files, with their folders' links followed."""
    folders: dict[str, str] = {}
    found = set()
    for i in range(len(dataset)):
        folder, name = os.path.split(dataset.records.path(i))
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.add(os.path.join(folders[folder], name))
    return found
