"""Data sets and transforms of a config, for every verb that reads images."""

from __future__ import annotations

import logging
from collections.abc import Callable

from detkit.config import Config
from detkit.data.datasets.base import DetectionDataset, Subset, count_empty_images, find_images_with_objects
from detkit.data.datasets.classes import ClassOptions, check_known, check_options, count_objects
from detkit.data.datasets.image_files import Folders
from detkit.data.datasets.problems import Problems
from detkit.data.final import check_transforms
from detkit.data.loader import check_split
from detkit.data.scan import ScanResult, apply_bad_images, scan_images
from detkit.data.transforms.base import Transform
from detkit.registry import DATASETS, TRANSFORMS
from detkit.structures import ClassMap
from detkit.utils.console import shorten_list
from detkit.utils.types import Tree, Value

log = logging.getLogger("detkit")

SPLITS = ("train", "val")
SECONDS = {"train": 30.0, "val": 120.0}
"""Time for decoding images at the start of a training; of those that are left, only headers are read."""
AllGather = Callable[[str, Tree], list[Value]]
"""Gathers a value of every process under a name; returns all of them, by rank."""


def check_settings(config: Config) -> None:
    """Raises ValueError for settings of data that contradict each other; reads no file."""
    path = "data.classes"
    check_options(config.options(path), f"{config.location(path)}: {path}")
    check_transforms(config)
    if "train" in config:
        check_batch(config)


def check_batch(config: Config, world_size: int = 1) -> None:
    """Raises ValueError unless the batch can be split evenly over processes and micro-batches."""
    with config.locate_errors("data.loader.batch_size", "train.accumulate"):
        check_split(config.options("data.loader").batch_size, world_size, config.options("train").accumulate)


def build_dataset(config: Config, split: str, classes: ClassMap | None = None, owner: str = "") -> DetectionDataset:
    """The data set of `data.<split>` with `data.classes` applied and all of its images, readable or not.

    classes: those of a trained detector, which the data set takes over by name. owner: what an error calls them.
    """
    dataset = with_options(read_dataset(config, split), config.options("data.classes"))
    if classes is not None:
        dataset.use_classes(classes, owner or "the checkpoint")
    check_classes(dataset)
    return dataset


def check_classes(dataset: DetectionDataset) -> None:
    """Raises ValueError if all classes are ignored."""
    if not len(dataset.classes):
        raise ValueError(f"{dataset.name}: ignore_classes excludes every class, so there is nothing to detect")


def build_datasets(config: Config) -> tuple[DetectionDataset, DetectionDataset]:
    """The data sets of training and validation, both with the classes of the training data."""
    train_set, val_set = read_dataset(config, "train"), read_dataset(config, "val")
    options: ClassOptions = config.options("data.classes")
    check_known(options, list(dict.fromkeys((*train_set.classes.names, *val_set.classes.names))), "data.classes")
    train_set, val_set = with_options(train_set, options), with_options(val_set, options)
    check_classes(train_set)
    val_set.use_classes(train_set.classes, f"the training data ({train_set.name})")
    counts = count_objects(train_set.records, train_set.classes)
    without = [n for n, count in zip(train_set.classes.names, counts, strict=True) if not count]
    if without and counts.any():
        log.warning("%s: no training object of %s", train_set.name, shorten_list(without))
    return train_set, val_set


def read_dataset(config: Config, split: str) -> DetectionDataset:
    """The data set of `data.<split>` with the classes of its files.

    Raises FileNotFoundError that names the keys of its paths, where they are written and where they lead.
    """
    key = f"data.{split}.dataset"
    try:
        dataset: DetectionDataset = config.build(DATASETS, key)
    except FileNotFoundError as error:
        raise FileNotFoundError("\n  ".join([str(error), *config.explain_paths(key)])) from error
    dataset.image_options = config.options("data.images")
    dataset.check_paths()
    return dataset


def with_options(dataset: DetectionDataset, options: ClassOptions) -> DetectionDataset:
    """The data set with `data.classes` applied, without the images that this leaves empty unless it keeps them."""
    if not options:
        return dataset
    dataset.choose_classes(options)
    if dataset.keep_empty:
        return dataset
    kept = find_images_with_objects(dataset.records, dataset.name)
    if len(kept) == len(dataset):
        return dataset
    subset = Subset(dataset, kept, dataset.name)
    emptied = Problems()
    count_empty_images(emptied, dataset.records, kept)
    emptied.report(dataset.name)
    subset.problems.merge(dataset.problems)
    subset.problems.merge(emptied)
    return subset


def usable_dataset(
    config: Config, split: str, classes: ClassMap | None = None, owner: str = "", *, early: bool = False
) -> DetectionDataset:
    """`build_dataset`, then `open_images`."""
    return open_images(build_dataset(config, split, classes, owner), split, early=early)


def open_images(
    dataset: DetectionDataset,
    split: str,
    *,
    all_gather: AllGather | None = None,
    rank: int = 0,
    world_size: int = 1,
    early: bool = False,
) -> DetectionDataset:
    """Opens the images and applies `data.images.bad_images` to those that can't be used.

    all_gather: shares the results of several processes, each of which opens its part of the images. early: with
    `error`, images are opened now, within `SECONDS`, and not only when they are needed.
    """
    decode_all = dataset.image_options.bad_images != "error"
    if not decode_all and not (early and any(not dataset.is_drawn(i) for i in range(len(dataset)))):
        return dataset
    indices = range(rank, len(dataset), world_size)
    seconds = None if decode_all else SECONDS[split]
    result = scan_images(dataset, indices, processes=world_size, seconds=seconds)
    if all_gather is not None:
        parts, result = all_gather(f"images of {split}", result.to_json()), ScanResult()
        for part in parts:
            result.add(part)
    if result.headers:
        log.info(
            "%s: decoded %d images, read the headers of %d more; `detkit data check` decodes all",
            dataset.name, result.decoded, result.headers,
        )  # fmt: skip
    elif result.decoded < len(dataset):
        log.info(
            "%s: decoded %d of %d images; `detkit data check` decodes all", dataset.name, result.decoded, len(dataset)
        )
    return apply_bad_images(dataset, result)


def build_transforms(config: Config, split: str) -> list[Transform]:
    key = f"data.{split}.transforms"
    return [config.build(TRANSFORMS, f"{key}.{i}") for i in range(len(config.require(key)))]


def warn_of_shared_images(train: DetectionDataset, val: DetectionDataset) -> str | None:
    """Warns if validation images are trained on; returns the warning, or None."""
    shared = sorted(real_paths(train) & real_paths(val))
    if train.content_hash() == val.content_hash():
        text = "the validation split is the training split: its AP measures memorisation"
    elif shared:
        names = shorten_list([path.rpartition("/")[2] for path in shared])
        text = f"{len(shared)} of {len(val)} validation images are also training images, so AP is too high: {names}"
    else:
        return None
    log.warning("%s: %s", " and ".join(dict.fromkeys((train.name, val.name))), text)
    return text


def real_paths(dataset: DetectionDataset) -> set[str]:
    """The image files of a data set, with links resolved; none if it draws its images."""
    folders = Folders()
    return {folders.real(dataset.records.path(i)) for i in range(len(dataset)) if dataset.reads_files}
