"""Opens the images of a data set before anything depends on them: which can't be used, and why."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.utils.console import plural, shorten_list

log = logging.getLogger("detkit")

MANY = 2000
"""Images from which on the log says that they are being opened."""
CHUNK = 64
"""Images between two looks at the clock."""


@dataclass
class ScanResult:
    """What opening images has shown: bad and repaired ones by index, each with the reason; how many were decoded, and
    of how many only the header was read."""

    bad: dict[int, str] = field(default_factory=dict)
    repaired: dict[int, str] = field(default_factory=dict)
    decoded: int = 0
    headers: int = 0

    def add(self, other: ScanResult) -> None:
        """Takes over what another process or a later look has found."""
        self.bad |= other.bad
        self.repaired |= other.repaired
        self.decoded += other.decoded
        self.headers += other.headers

    def to_json(self) -> dict[str, object]:
        """For another process."""
        return {**vars(self), "bad": [*self.bad.items()], "repaired": [*self.repaired.items()]}

    @classmethod
    def from_json(cls, values: dict[str, object]) -> ScanResult:
        """The opposite of `to_json`."""
        bad, repaired = values["bad"], values["repaired"]
        return cls(**{**values, "bad": dict(bad), "repaired": dict(repaired)})  # type: ignore[call-overload]


def scan_images(
    dataset: DetectionDataset, indices: Sequence[int], *, threads: int = 1, seconds: float | None = None
) -> ScanResult:
    """Decodes the images at `indices`; after `seconds` of it, reads only the headers of those that are left.

    Images that are not files, as those of a data set that draws them, are decoded in one thread.
    """
    found, done = ScanResult(), 0
    started = time.monotonic()
    if len(indices) >= MANY:
        log.info("%s: opening %d images once", dataset.name, len(indices))
    with ThreadPoolExecutor(threads if dataset.reads_files else 1) as pool:
        while done < len(indices) and (seconds is None or time.monotonic() - started < seconds):
            part = indices[done : done + CHUNK]
            for index, (why, mended) in zip(part, pool.map(lambda i: check_image(dataset, i), part), strict=True):
                if why is not None:
                    (found.repaired if mended else found.bad)[index] = why
            done += len(part)
        found.decoded = done
        rest = indices[done:] if dataset.reads_files else []
        found.bad |= dict(_problems(rest, pool.map(lambda i: header_problem(dataset, i), rest)))
        found.headers = len(rest)
    return found


def _problems(indices: Iterable[int], whys: Iterable[str | None]) -> Iterator[tuple[int, str]]:
    return ((index, why) for index, why in zip(indices, whys, strict=True) if why is not None)


def check_image(dataset: DetectionDataset, index: int) -> tuple[str | None, bool]:
    """Why an image can't be used as it is, or None; and whether `bad_images: repair` makes it usable."""
    strict = copy.copy(dataset)
    strict.image_options = replace(dataset.image_options, bad_images="error")
    why = decoding_problem(strict, index)
    if why is None or dataset.image_options.bad_images != "repair":
        return why, False
    worse = decoding_problem(dataset, index)
    return (why, True) if worse is None else (worse, False)


def decoding_problem(dataset: DetectionDataset, index: int) -> str | None:
    """What decoding an image ends with, or None."""
    try:
        dataset.checked_image(index)
    except (ValueError, OSError) as error:
        return _named(dataset, index, error)
    return None


def header_problem(dataset: DetectionDataset, index: int) -> str | None:
    """What reading the header of an image file ends with, or None."""
    try:
        dataset.check_size(index, dataset.image_size(index))
    except (ValueError, OSError) as error:
        return _named(dataset, index, error)
    return None


def _named(dataset: DetectionDataset, index: int, error: Exception) -> str:
    path, text = dataset.records.path(index), str(error)
    return text if path in text else f"{path}: {text}"


class BadImagesError(ValueError):
    """Images of a split can't be used, and its `bad_images` does not leave them out."""


class WithoutBadImages(Subset):
    """A data set without its bad images; `left_out` says which and why. Its annotations count as those of the whole."""

    def __init__(self, dataset: DetectionDataset, bad: dict[int, str]) -> None:
        super().__init__(dataset, [i for i in range(len(dataset)) if i not in bad], dataset.name)
        self.problems = dataset.problems
        self.left_out = {dataset.records.path(i): why for i, why in sorted(bad.items())}

    def content_hash(self) -> str:
        """See `DetectionDataset.content_hash`."""
        return self.dataset.content_hash()

    def counts(self) -> str:
        """See `DetectionDataset.counts`; with the images that are left out."""
        names = shorten_list([path.rpartition("/")[2] for path in self.left_out])
        return f"{super().counts()}; {plural(len(self.left_out), 'bad image')} left out: {names}"


def apply_bad_images(dataset: DetectionDataset, found: ScanResult) -> DetectionDataset:
    """The data set as its `bad_images` has it; BadImagesError that names them if they are errors."""
    total = len(dataset)
    for why in found.repaired.values():
        log.warning("%s: repaired (data.images.bad_images: repair): %s", dataset.name, why)
    if not found.bad:
        return dataset
    lines = "".join(f"\n  {why}" for _, why in sorted(found.bad.items())[:20])
    lines += f"\n  and {len(found.bad) - 20} more" if len(found.bad) > 20 else ""
    if dataset.image_options.bad_images != "skip":
        raise BadImagesError(
            f"{dataset.name}: {len(found.bad)} of {total} images can't be used:{lines}\nReplace them; or set "
            "data.images.bad_images=skip, which leaves them out of training and evaluation, or =repair, which decodes "
            "what is there of a damaged one"
        )
    if len(found.bad) == total:
        raise BadImagesError(f"{dataset.name}: none of the {total} images can be used:{lines}")
    log.warning("%s: left out %d of %d images (data.images.bad_images: skip):%s", dataset.name, len(found.bad), total,
                lines)  # fmt: skip
    return WithoutBadImages(dataset, found.bad)
