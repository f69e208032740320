"""Data sets made of others: several as one, some images only, images more than once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detkit.data.datasets.base import DetectionDataset, Records
from detkit.data.datasets.classes import align_classes, assign_ids, relabel
from detkit.data.datasets.image_names import indices_of, read_list
from detkit.data.datasets.records import image_of_rows, join_records, take_images
from detkit.data.datasets.wrapper import WrapperDataset, build_part
from detkit.registry import DATASETS, DatasetNode, FractionAboveZero, PathStr, PositiveInt
from detkit.structures import ClassMap
from detkit.utils.types import Floats, Ints

log = logging.getLogger("detkit")


@DATASETS.register()
class ConcatDataset(WrapperDataset):
    """The images of several data sets, one after the other; their classes are merged by name.

    Image ids stay if no two data sets share one; otherwise images count from 1.

    Args:
        datasets: the data sets.
    """

    def __init__(self, *, datasets: list[DatasetNode]) -> None:
        if not datasets:
            raise ValueError("datasets: the list is empty")
        parts = [build_part(node) for node in datasets]
        classes = merge_classes([part.classes for part in parts])
        name = " + ".join(dict.fromkeys(part.name for part in parts))
        records = join_records([relabel(p.records, align_classes(classes, p.classes)[1]) for p in parts])
        sources = [(k, i) for k, part in enumerate(parts) for i in range(len(part))]
        self.wrap(name, parts, classes, with_unique_ids(records, name), sources)


def merge_classes(parts: Sequence[ClassMap]) -> ClassMap:
    """The classes of all parts by name, in the order in which they come; an id that is taken becomes a free one."""
    ids: dict[str, int] = {}
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    for part in parts:
        for name, category in zip(part.names, part.ids, strict=True):
            if name not in ids and category not in ids.values():
                ids[name] = category
    return ClassMap(tuple(names), assign_ids(names, ids))


def with_unique_ids(records: Records, name: str) -> Records:
    """The records; with ids from 1 if one is there twice."""
    if len(set(records.image_ids.tolist())) == len(records):
        return records
    log.info("%s: image ids are used in several of the data sets, so images count from 1", name)
    return replace(records, image_ids=np.arange(1, len(records) + 1))


@DATASETS.register()
class SubsetDataset(WrapperDataset):
    """Some images of a data set.

    Args:
        dataset: the data set.
        images: text file with the name of an image on each line, or the names: paths below the folder that all images
            share, or any end of a path that only one image has.
    """

    def __init__(self, *, dataset: DatasetNode, images: PathStr | list[str]) -> None:
        part = build_part(dataset)
        where = images if isinstance(images, str) else "images"
        if not images:
            raise ValueError("images: the list is empty")
        indices = indices_of(part, read_list(images) if isinstance(images, str) else images, where)
        name = f"{part.name} ({where})" if isinstance(images, str) else part.name
        self.wrap(name, [part], part.classes, take_images(part.records, indices), ((0, i) for i in indices))


@DATASETS.register()
class RepeatDataset(WrapperDataset):
    """A data set several times over, so that an epoch is longer; each time counts as another image.

    Args:
        dataset: the data set.
        times: how often each image is there.
    """

    def __init__(self, *, dataset: DatasetNode, times: PositiveInt) -> None:
        part = build_part(dataset)
        wrap_repeated(self, part, np.full(len(part), times, np.int64), f"{part.name} x {times}")


@DATASETS.register()
class ClassBalancedDataset(WrapperDataset):
    """A data set in which images with rare classes are there several times: repeat factor sampling (1908.03195).

    A class that a fraction f of the images have gets the factor max(1, sqrt(threshold / f)), an image the largest
    factor of its classes. Factors are rounded up or down so that their sum over the images before stays right.

    Args:
        dataset: the data set.
        threshold: fraction of the images below which a class is rare.
    """

    def __init__(self, *, dataset: DatasetNode, threshold: FractionAboveZero = 1e-3) -> None:
        part = build_part(dataset)
        times = round_factors(repeat_factors(part, threshold))
        wrap_repeated(self, part, times, f"{part.name} (class-balanced, {threshold:g})")
        log.info("%s: %d images count as %d", self.name, len(part), len(self))


def repeat_factors(dataset: DetectionDataset, threshold: float) -> Floats:
    """(B,) the repeat factor of each image; ignore regions do not count."""
    records = dataset.records
    table = np.zeros((len(records), len(dataset.classes)), bool)
    image = image_of_rows(records.ends)
    table[image[~records.is_ignore], records.labels[~records.is_ignore]] = True
    of_class = np.sqrt(threshold / np.maximum(table.mean(axis=0), 1e-12))
    factors: Floats = np.where(table, of_class[None], 1.0).max(axis=1, initial=1.0)
    return factors


def round_factors(factors: Floats) -> Ints:
    """(B,) whole numbers, each up or down, whose sums from the start are those of the factors, rounded."""
    # What is far below a part of an image must not decide over it.
    total = np.round(np.cumsum(factors), 9)
    times: Ints = np.diff(np.floor(total + 0.5), prepend=0).astype(np.int64)
    return times


def wrap_repeated(wrapper: WrapperDataset, part: DetectionDataset, times: Ints, name: str) -> None:
    """Lets a wrapper have each image of a data set some times; the first keep their ids, the others get new ones."""
    rounds = [np.flatnonzero(times > k) for k in range(int(times.max(initial=0)))]
    indices = np.concatenate(rounds)
    records = take_images(part.records, indices.tolist())
    step = int(part.records.image_ids.max()) - int(part.records.image_ids.min()) + 1
    shift = np.repeat(np.arange(len(rounds)) * step, [len(r) for r in rounds])
    wrapper.wrap(
        name, [part], part.classes, replace(records, image_ids=records.image_ids + shift), ((0, i) for i in indices)
    )
