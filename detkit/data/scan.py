"""Opening of all images of a data set before training or evaluation: which can't be used, and why."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.hub.download import FetchError
from detkit.utils.console import indented_list, plural, shorten_list
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

MANY = 2000
"""From this number of images, the log reports that they are being opened."""
CHUNK = 64
"""Images between two checks of the time."""


@dataclass
class ScanResult:
    """Bad and repaired images by index, with the reason; how many were decoded, and of how many only the header."""

    bad: dict[int, str] = field(default_factory=dict)
    repaired: dict[int, str] = field(default_factory=dict)
    decoded: int = 0
    headers: int = 0

    def to_json(self) -> Tree:
        """In a form that other processes can receive."""
        return {**vars(self), "bad": [*self.bad.items()], "repaired": [*self.repaired.items()]}

    def add(self, other: Tree) -> None:
        """Adds the results of another process, in the form of `to_json`."""
        self.bad |= dict(other["bad"])
        self.repaired |= dict(other["repaired"])
        self.decoded += other["decoded"]
        self.headers += other["headers"]


def scan_images(
    dataset: DetectionDataset, indices: Sequence[int], *, processes: int = 1, seconds: float | None = None
) -> ScanResult:
    """Decodes the images at `indices`; after `seconds` of it, reads only the headers of those that are left.

    Images that are not files of their own, as those in shards, are decoded in one thread, and none of them is looked at
    after `seconds`: to find their headers, all of the shards would be read. processes: how many share the machine.
    """
    threads = max(1, min(16, (os.cpu_count() or 1) // processes)) if dataset.reads_files else 1
    result, done = ScanResult(), 0
    started = time.monotonic()
    if len(indices) >= MANY:
        log.info("%s: opening %d images", dataset.name, len(indices))
    with ThreadPoolExecutor(threads) as pool:
        while done < len(indices) and (seconds is None or time.monotonic() - started < seconds):
            part = indices[done : done + CHUNK]
            for index, (why, repaired) in zip(part, pool.map(lambda i: check_image(dataset, i), part), strict=True):
                if why is not None:
                    (result.repaired if repaired else result.bad)[index] = why
            done += len(part)
        result.decoded = done
        rest = indices[done:] if dataset.reads_files else []
        for index, why in zip(rest, pool.map(lambda i: image_problem(dataset, i, header_only=True), rest), strict=True):
            if why is not None:
                result.bad[index] = why
        result.headers = len(rest)
    return result


def check_image(dataset: DetectionDataset, index: int) -> tuple[str | None, bool]:
    """Why an image can't be used as it is, or None; and whether `bad_images: repair` makes it usable."""
    strict = copy.copy(dataset)
    strict.image_options = replace(dataset.image_options, bad_images="error")
    why = image_problem(strict, index)
    if why is None or dataset.image_options.bad_images != "repair":
        return why, False
    after_repair = image_problem(dataset, index)
    return (why, True) if after_repair is None else (after_repair, False)


def image_problem(dataset: DetectionDataset, index: int, *, header_only: bool = False) -> str | None:
    """The error of decoding an image, or of reading the header of its file; None if there is none."""
    try:
        if header_only:
            dataset.check_size(index, dataset.image_size(index))
        else:
            dataset.checked_image(index)
    except FetchError:
        raise  # a server that does not answer says nothing about the image
    except (ValueError, OSError) as error:
        path, text = dataset.records.path(index), str(error)
        return text if path in text else f"{path}: {text}"
    return None


class BadImagesError(ValueError):
    """Images of a split can't be used, and its `bad_images` does not leave them out."""


class WithoutBadImages(Subset):
    """A data set without its bad images, which are in `left_out`. Its content hash is that of the full data set."""

    def __init__(self, dataset: DetectionDataset, bad: dict[int, str]) -> None:
        super().__init__(dataset, [i for i in range(len(dataset)) if i not in bad], dataset.name)
        self.problems = dataset.problems
        self.left_out = {dataset.records.path(i): why for i, why in sorted(bad.items())}

    def content_hash(self) -> str:
        return self.dataset.content_hash()

    def counts(self) -> str:
        names = shorten_list([path.rpartition("/")[2] for path in self.left_out])
        return f"{super().counts()}; {plural(len(self.left_out), 'bad image')} left out: {names}"


def apply_bad_images(dataset: DetectionDataset, result: ScanResult) -> DetectionDataset:
    """Applies `data.images.bad_images` to a scan; BadImagesError that names the images unless they are skipped."""
    total = len(dataset)
    for why in result.repaired.values():
        log.warning("%s: repaired (data.images.bad_images: repair): %s", dataset.name, why)
    if not result.bad:
        return dataset
    lines = indented_list([why for _, why in sorted(result.bad.items())])
    if dataset.image_options.bad_images != "skip":
        raise BadImagesError(
            f"{dataset.name}: {len(result.bad)} of {total} images can't be used:{lines}\nReplace them, or set "
            "data.images.bad_images=skip to leave them out of training and evaluation, or =repair to decode damaged "
            "ones as far as possible"
        )
    if len(result.bad) == total:
        raise BadImagesError(f"{dataset.name}: none of the {total} images can be used:{lines}")
    counted = f"{len(result.bad)} of {total} images"
    log.warning("%s: left out %s (data.images.bad_images: skip):%s", dataset.name, counted, lines)
    return WithoutBadImages(dataset, result.bad)
