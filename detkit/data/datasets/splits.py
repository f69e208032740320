"""Splits of a data set that has none: made once, written down as lists, and read from these ever after."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.image_names import indices_of, original_names, read_list
from detkit.registry import FractionBelowOne, OpenFraction, PathStr, Seed, enforce_bounds
from detkit.utils.console import plural, printable, shorten_list
from detkit.utils.outputs import check_can_write, write_text
from detkit.utils.types import Floats, Ints, Tree

log = logging.getLogger("detkit")


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How a data set without splits is divided.

    Args:
        val: fraction of the images for validation.
        test: fraction of the images for a test.
        seed: of the random choice, not of the training.
        stratified: every class gets its fraction in each split, as near as whole images allow.
        file: folder with the lists train.txt and val.txt; lists that are there are read, others are written, so that
            the split stays when images are added. null writes none.
    """

    val: OpenFraction = 0.2
    test: FractionBelowOne = 0.0
    seed: Seed = 0
    stratified: bool = True
    file: PathStr | None = None

    def __post_init__(self) -> None:
        if self.val + self.test >= 1:
            raise ValueError(f"val: val {self.val:g} and test {self.test:g} leave no image for training: lower one")

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of each split that has images."""
        fractions = {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}
        return {name: fraction for name, fraction in fractions.items() if fraction > 0}


def make_split(dataset: DetectionDataset, options: SplitOptions) -> dict[str, list[str]]:
    """The image names of each split, in the order of the data set; a function of the data and the options.

    Raises ValueError if there are fewer images than splits.
    """
    names, fractions = original_names(dataset), options.fractions
    if len(names) < len(fractions):
        raise ValueError(
            f"{dataset.name}: {plural(len(names), 'image is', 'images are')} too few for {' and '.join(fractions)}"
        )
    classes = class_table(dataset) if options.stratified else np.ones((len(names), 1), bool)
    chosen = deal_out(classes, np.array(list(fractions.values())), options.seed)
    return {split: [names[i] for i in np.flatnonzero(chosen == k)] for k, split in enumerate(fractions)}


def split_lists(dataset: DetectionDataset, options: SplitOptions) -> dict[str, list[str]]:
    """The lists of `options.file`, which are made and written if they are not there; ValueError if only some are."""
    if options.file is None:
        return make_split(dataset, options)
    files = list_files(options.file, options)
    there = [name for name, file in files.items() if file.is_file()]
    if there and len(there) < len(files):
        missing = ", ".join(printable(file) for name, file in files.items() if name not in there)
        raise ValueError(f"{printable(files[there[0]])} is there, but {missing} is missing: restore it, or delete both")
    if there:
        lists = {name: read_list(file) for name, file in files.items()}
        warn_of_unlisted(dataset, lists, options.file)
        return lists
    return write_split(make_split(dataset, options), options)


def warn_of_unlisted(dataset: DetectionDataset, lists: Mapping[str, Sequence[str]], folder: str) -> None:
    """Warns of images that are in no list, as those that were added after the split; ValueError for one in two."""
    used: dict[int, str] = {}
    for split, names in lists.items():
        for i in indices_of(dataset, names, f"{folder}/{split}.txt"):
            if used.setdefault(i, split) != split:
                raise ValueError(f"{folder}: {dataset.records.path(i)} is in {used[i]}.txt and in {split}.txt")
    unlisted = [dataset.records.path(i) for i in range(len(dataset)) if i not in used]
    if unlisted:
        count = plural(len(unlisted), "image is", "images are")
        log.warning("%s: %s in no list of %s, so unused: %s", dataset.name, count, folder, shorten_list(unlisted, 5))


def list_files(folder: str, options: SplitOptions) -> dict[str, Path]:
    """The list of each split."""
    return {split: Path(folder) / f"{split}.txt" for split in options.fractions}


def write_split(split: Mapping[str, Sequence[str]], options: SplitOptions) -> dict[str, list[str]]:
    """Writes the lists of a split; ValueError for a name that no line of text can hold."""
    folder = Path(options.file or ".")
    check_can_write("split.file", folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in split.items():
        wrong = [image for image in images if image != image.strip() or not image.isprintable()]
        if wrong:
            raise ValueError(
                f"{printable(wrong[0])}: a list has a name on each line, and can't hold this one: rename it"
            )
        write_text(folder / f"{name}.txt", "".join(f"{image}\n" for image in images))
    return {name: list(images) for name, images in split.items()}


def split_nodes(node: Tree, lists: Mapping[str, Sequence[str]], options: SplitOptions) -> dict[str, Tree]:
    """The config node of each split of a data set that a node describes: a SubsetDataset with a list.

    The lists are files if `options.file` says where, else the names themselves.
    """
    files = list_files(options.file, options) if options.file is not None else {}
    return {
        split: {"type": "SubsetDataset", "dataset": node, "images": str(files[split]) if files else list(names)}
        for split, names in lists.items()
    }


def class_table(dataset: DetectionDataset) -> NDArray[np.bool_]:
    """(B, K + 1) which classes an image has objects of; the last column is for images without objects."""
    truth = dataset.records.truth
    table = np.zeros((len(dataset), len(dataset.classes) + 1), bool)
    is_object = ~truth.is_ignore
    table[truth.image_of[is_object], truth.labels[is_object]] = True
    table[~table.any(axis=1), -1] = True
    return table


def deal_out(classes: NDArray[np.bool_], fractions: Floats, seed: int) -> Ints:
    """(B,) the split of each image: iterative stratification (Sechidis et al. 2011, algorithm 1).

    The rarest class comes first; each of its images goes to the split that lacks most of the class, then of images.
    Every split gets one image at least.
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    wanted = fractions[:, None] * classes.sum(axis=0)[None]
    wanted_images = fractions * len(classes)
    chosen = np.full(len(classes), -1)
    open_images = np.ones(len(classes), bool)
    while open_images.any():
        left = classes[open_images].sum(axis=0)
        rarest = int(np.where(left > 0, left, len(classes) + 1).argmin())
        for i in order[(classes[:, rarest] & open_images)[order]].tolist():
            split = max(range(len(fractions)), key=lambda k: (wanted[k, rarest], wanted_images[k]))
            chosen[i], open_images[i] = split, False
            wanted[split, classes[i]] -= 1
            wanted_images[split] -= 1
    fill_empty(chosen, len(fractions))
    return chosen


def fill_empty(chosen: Ints, count: int) -> None:
    """Gives every split without images one of the largest."""
    for split in range(count):
        if not (chosen == split).any():
            largest = int(np.bincount(chosen, minlength=count).argmax())
            chosen[np.flatnonzero(chosen == largest)[-1]] = split
