"""Short names of the images of a data set, and the images that a list of names means."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.file_formats import read_text
from detkit.utils.console import nearest, plural, printable, shorten_list


def paths_of(dataset: DetectionDataset) -> list[str]:
    """The absolute path of each image."""
    return [os.path.abspath(dataset.records.path(i)) for i in range(len(dataset))]


def top_folder(dataset: DetectionDataset) -> str:
    """The deepest folder that all images of a data set share."""
    return os.path.commonpath([os.path.dirname(path) for path in paths_of(dataset)])


def original_names(dataset: DetectionDataset) -> list[str]:
    """The path of each image below the folder that all of them share, with slashes; of what is no file, as it is."""
    if dataset.reads_files:
        top = top_folder(dataset)
        return [os.path.relpath(path, top).replace(os.sep, "/") for path in paths_of(dataset)]
    return [dataset.records.path(i) for i in range(len(dataset))]


def read_list(path: str | Path) -> list[str]:
    """The names in a text file, one on each line; ValueError for a file that is not text or has none."""
    text = read_text(path)
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path}: the list is empty")
    return names


def indices_of(dataset: DetectionDataset, names: Sequence[str], where: str) -> list[int]:
    """The indices of the images that names mean: as `original_names` has them, or by an end of the path of one image.

    where: what errors call the list. ValueError for a name that no image has, several have, or that is there twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: {plural(len(twice), 'image is', 'images are')} there twice: {shorten_list(twice)}")
    known = {name: i for i, name in enumerate(original_names(dataset))}
    ends = {} if set(names) <= set(known) else path_ends(dataset)
    found = {name: [known[name]] if name in known else ends.get(plain_name(name), []) for name in names}
    missing = [printable(name) for name, indices in found.items() if not indices]
    if missing:
        near = nearest(missing[0], list(known)) if len(known) < 10_000 else "."
        count = plural(len(missing), "image is", "images are")
        way_out = "Restore the images, or take their names out of the list"
        raise ValueError(f"{where}: {count} not in {dataset.name}: {shorten_list(missing)}{near} {way_out}")
    several = [printable(name) for name, indices in found.items() if len(indices) > 1]
    if several:
        raise ValueError(
            f"{where}: {shorten_list(several)} may be several images of {dataset.name}: write the folder in front of it"
        )
    return [indices[0] for indices in found.values()]


def plain_name(name: str) -> str:
    """A name with slashes and without `./` in front."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def path_ends(dataset: DetectionDataset) -> dict[str, list[int]]:
    """Every end of an image's path, from the file's name to all of it -> the images that have it."""
    ends: dict[str, list[int]] = {}
    for i in range(len(dataset)):
        parts = dataset.records.path(i).replace(os.sep, "/").split("/")
        for start in range(len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(i)
    return ends
