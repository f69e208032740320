"""What the pixels of every image say, gathered once on all cores and kept by content."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.images import ORIENTATION, header_exif, open_image
from detkit.data.doctor.store import COLOUR, GREY, FactStore, ImageFacts
from detkit.data.scan import ScanResult, check_image
from detkit.utils.console import bar_stream
from detkit.utils.cores import usable_cores
from detkit.utils.outputs import file_sha256

AHEAD = 64
"""Images that are handed out at once, for each core."""
Examined = tuple[ImageFacts | None, str | None, bool]
"""Facts of an image, why it can't be used as it is, and whether `bad_images: repair` makes it usable."""


@dataclass(frozen=True)
class Gathered:
    """Facts by index of the images that decode, and the scan that says which can't be used."""

    facts: dict[int, ImageFacts]
    scan: ScanResult


def gather(dataset: DetectionDataset, title: str, *, cached: bool = True) -> Gathered:
    """Decodes every image of a data set on all cores, with a progress bar on a terminal.

    title: of the bar. cached: whether facts of files whose content was seen before are taken from the cache.
    """
    from tqdm import tqdm

    facts: dict[int, ImageFacts] = {}
    scan = ScanResult(decoded=len(dataset))
    with FactStore.default() if cached and dataset.reads_files else FactStore(None) as store:
        work = in_order(lambda i: examine(dataset, i, store), range(len(dataset)), dataset.reads_files)
        bar = tqdm(work, desc=title, total=len(dataset), unit="image", leave=False, disable=None, file=bar_stream())
        for index, (fact, why, repaired) in enumerate(bar):
            if fact is not None:
                facts[index] = fact
                store.put(fact)
            if why is not None:
                (scan.repaired if repaired else scan.bad)[index] = why
    return Gathered(facts, scan)


def in_order(work: Callable[[int], Examined], indices: Sequence[int], parallel: bool) -> Iterator[Examined]:
    """The results of `work` in the order of `indices`, on all cores if it may run in parallel."""
    cores = usable_cores() if parallel else 1
    with ThreadPoolExecutor(cores) as pool:
        for start in range(0, len(indices), AHEAD * cores):
            yield from pool.map(work, indices[start : start + AHEAD * cores])


def examine(dataset: DetectionDataset, index: int, store: FactStore) -> Examined:
    """The facts of an image, from the store if its content is known."""
    key = content_key(dataset, index)
    facts = store.get(key) if key else None
    if facts is None or facts.size[0] * facts.size[1] > dataset.image_options.max_megapixels * 1e6:
        try:
            facts = measure(strictly(dataset), index, key)
        except (ValueError, OSError):
            return repaired_facts(dataset, index)
    try:
        dataset.check_size(index, facts.size)
    except ValueError as error:
        return facts, f"{dataset.records.path(index)}: {error}", False
    return facts, None, False


def repaired_facts(dataset: DetectionDataset, index: int) -> Examined:
    """The facts of a damaged image, if it is to be repaired; under no key, so that they are not kept."""
    why, repaired = check_image(dataset, index)
    return (measure(dataset, index, "") if repaired else None), why, repaired


def strictly(dataset: DetectionDataset) -> DetectionDataset:
    """The data set, with errors for damaged images."""
    strict = copy.copy(dataset)
    strict.image_options = replace(dataset.image_options, bad_images="error")
    return strict


def content_key(dataset: DetectionDataset, index: int) -> str:
    """SHA-256 of an image's file; "" if it is drawn, or can't be read."""
    try:
        return file_sha256(Path(dataset.records.path(index))) if dataset.reads_files else ""
    except OSError:
        return ""


def measure(dataset: DetectionDataset, index: int, key: str) -> ImageFacts:
    """Decodes an image and makes its small copies; one that is drawn has the hash of its pixels."""
    image = dataset.load_image(index)
    stored, orientation = stored_size(dataset, index, image)
    small = image.resize((GREY, GREY), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"))
    colour = np.asarray(small.resize((COLOUR, COLOUR), Image.Resampling.BOX))
    key = key or ("" if dataset.reads_files else hashlib.sha256(image.tobytes()).hexdigest())
    return ImageFacts(key, (image.height, image.width), stored, orientation, grey, colour)


def stored_size(dataset: DetectionDataset, index: int, image: Image.Image) -> tuple[tuple[int, int], int]:
    """(height, width) of the pixels as stored, and the EXIF orientation; of a damaged header, those of the image."""
    upright = image.height, image.width
    if not dataset.reads_files:
        return upright, 1
    path = dataset.records.path(index)
    try:
        with open_image(path, path, dataset.image_options) as opened:
            orientation = header_exif(opened).get(ORIENTATION, 1)
            size = opened.height, opened.width
    except Exception:  # Pillow's many errors for a header that repair gets over
        return upright, 1
    return size, orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
