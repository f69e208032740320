"""Data sets by path: `detkit.datasets.load("path/to/data")`, and batches of them for a training loop of one's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from detkit.config import Config
from detkit.data.datasets.auto import find_data, split_node
from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import Loader, LoaderOptions, build_eval_loader, build_train_loader
from detkit.data.transforms.base import Transform
from detkit.hub import local_path
from detkit.registry import DATASETS, TRANSFORMS
from detkit.utils.console import printable
from detkit.utils.types import Value

log = logging.getLogger("detkit")


def load(
    path: str | os.PathLike[str] | Sequence[Mapping[str, object]],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    **options: Value,
) -> DetectionDataset:
    """Opens a data set of any format, found by looking: COCO, Pascal VOC, YOLO, CSV and others.

    Args:
        path: file or folder, here or at an address; or a list of dicts, one for each image, as `ListDataset` takes it.
        split: which one, where there are several: train, val, test, or another name that is there.
        images: folder of the images of a single annotation file; None searches it near the file.
        options: more arguments of the reader, as `class_names` or `ignore_classes`.

    Raises FileNotFoundError or ValueError that names what was found instead.
    """
    if not isinstance(path, (str, os.PathLike)):
        return load_list(path, split, images, options)
    place = local_path(path)
    found = find_data(place)
    node = split_node(found, split, printable(place))
    if images is not None:
        if "images" not in node:
            raise ValueError(
                f"images: {printable(place)} is {found.format}, whose images are found by their annotations"
            )
        node = {**node, "images": str(local_path(images))}
    for note in found.notes:
        log.info("%s: %s", printable(place), note)
    dataset: DetectionDataset = DATASETS.build({**node, **options})
    return dataset


def load_list(
    entries: Sequence[Mapping[str, object]],
    split: str | None,
    images: str | os.PathLike[str] | None,
    options: Mapping[str, Value],
) -> DetectionDataset:
    """The data set of a list of dicts."""
    if split is not None:
        raise ValueError(f"split: a list has no splits, so there is no {split!r}")
    folder = {} if images is None else {"images": str(local_path(images))}
    dataset: DetectionDataset = DATASETS.build({"type": "ListDataset", **folder, **options}, entries=entries)
    return dataset


def batches(
    dataset: DetectionDataset,
    *,
    train: bool = True,
    transforms: Sequence[Mapping[str, Value] | Transform] | Config = (),
    batch_size: int = 8,
    num_workers: int = 0,
    size_divisor: int = 32,
    seed: int = 0,
) -> Loader:
    """Batches of a data set: endless and shuffled for training, else every image once in its order.

    Args:
        train: whether they are for training.
        transforms: what happens to an image and its boxes: `{"type": "RandomHorizontalFlip"}`, ready transforms, or a
            config, whose `data.train` or `data.val` has them.
        batch_size: images of a batch.
        num_workers: processes that load; 0 loads in this one.
        size_divisor: height and width of a batch are padded with zeros to a multiple of it.
        seed: of the order and the transforms.
    """
    options = LoaderOptions(batch_size=batch_size, num_workers=num_workers, size_divisor=size_divisor)
    if isinstance(transforms, Config):
        transforms = list(transforms.require(f"data.{'train' if train else 'val'}.transforms"))
    chain = [t if isinstance(t, Transform) else TRANSFORMS.build(t) for t in transforms]
    if train:
        return build_train_loader(dataset, chain, options, seed=seed)
    return build_eval_loader(dataset, chain, options)
