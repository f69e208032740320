"""Data sets of a config, with the classes of both splits put right by name."""

from __future__ import annotations

import logging

from detkit.config import Config
from detkit.data.datasets.base import DetectionDataset, Subset, images_with_objects, note_empty
from detkit.data.datasets.classes import ClassOptions, check_known, objects_by_class
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import some
from detkit.registry import DATASETS
from detkit.structures import ClassMap

log = logging.getLogger("detkit")


def build_data_set(config: Config, split: str, classes: ClassMap | None = None, owner: str = "") -> DetectionDataset:
    """The data set of `data.<split>` with `data.classes` applied. classes: those of a trained detector, which
    the data set then takes over by name; owner: what an error calls them."""
    dataset: DetectionDataset = DATASETS.build(config.require(f"data.{split}.dataset"))
    dataset = with_options(dataset, config.options("data.classes"))
    if classes is not None:
        dataset.use_classes(classes, owner or "the checkpoint")
    return dataset


def build_data_sets(config: Config) -> tuple[DetectionDataset, DetectionDataset]:
    """Those of training and validation, both with the classes of the training."""
    train_set: DetectionDataset = DATASETS.build(config.require("data.train.dataset"))
    val_set: DetectionDataset = DATASETS.build(config.require("data.val.dataset"))
    options: ClassOptions = config.options("data.classes")
    check_known(options, list(dict.fromkeys((*train_set.classes.names, *val_set.classes.names))), "data.classes")
    train_set, val_set = with_options(train_set, options), with_options(val_set, options)
    val_set.use_classes(train_set.classes, f"the training data ({train_set.name})")
    counts = objects_by_class(train_set.records, train_set.classes)
    without = [n for n, count in zip(train_set.classes.names, counts, strict=True) if not count]
    if without and counts.any():
        log.warning("%s: no object of %s to learn from", train_set.name, some(without))
    return train_set, val_set


def with_options(dataset: DetectionDataset, options: ClassOptions) -> DetectionDataset:
    """The data set with `data.classes` applied; without the images that this leaves empty, if it keeps none."""
    if not options:
        return dataset
    dataset.choose_classes(options)
    if dataset.keep_empty:
        return dataset
    kept = images_with_objects(dataset.records, dataset.name)
    if len(kept) == len(dataset):
        return dataset
    less = Subset(dataset, kept, dataset.name)
    emptied = Problems()
    note_empty(emptied, dataset.records, kept)
    emptied.report(dataset.name)
    less.problems.merge(dataset.problems)
    less.problems.merge(emptied)
    return less
