"""Names of images and classes in the written data set."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.image_names import original_names
from detkit.data.datasets.problems import Problems
from detkit.data.writers.kinds import NEW_CLASS, NEW_NAME
from detkit.utils.console import printable

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029\\]")
"""Characters of a name that a list, a table or XML can't hold."""


def image_names(dataset: DetectionDataset, problems: Problems, key: Callable[[str], str] = str.casefold) -> list[str]:
    """A name for each image: its original name, with `_` for what no text file can hold, and each name once.

    What is drawn is NAME.png; what is inside of another file has the suffix of its format.

    key: what two names may not share.
    """
    names = original_names(dataset)
    if not dataset.reads_files:
        names = [own_name(os.path.basename(name) or "image", i, dataset) for i, name in enumerate(names)]
    safe = [with_image_suffix(make_unhidden(UNSAFE.sub("_", name)), i, dataset) for i, name in enumerate(names)]
    return make_unique(names, safe, key, problems)


def own_name(name: str, index: int, dataset: DetectionDataset) -> str:
    """The name of an image that is drawn, or inside of another file, as a JSON file of its own."""
    if dataset.is_drawn(index):
        return str(PurePosixPath(name).with_suffix(".png"))
    return with_image_suffix(name.removesuffix(".json"), index, dataset)


def with_image_suffix(name: str, index: int, dataset: DetectionDataset) -> str:
    """The name, with the suffix of its format behind it if it has none by which a reader knows an image."""
    has_one = PurePosixPath(name).suffix.lower() in image_suffixes()
    return name if has_one else f"{name}{suffix_of(dataset, index)}"


def suffix_of(dataset: DetectionDataset, index: int) -> str:
    """The suffix of an image's format, as its content shows; .jpg if it can't be read."""
    try:
        source = dataset.image_source(index)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return next((s for s in image_suffixes() if Image.registered_extensions()[s] == image.format), ".jpg")
    except (OSError, ValueError):
        return ".jpg"


def make_unhidden(name: str) -> str:
    """The name with no part that begins with a dot or has spaces around it, which readers pass over or cut off.

    Nor has the name without its suffix any, as it is in the lists of some formats.
    """
    stem, suffix = os.path.splitext(name)
    parts = [part.strip() for part in f"{stem.rstrip()}{suffix}".split("/")]
    return "/".join(f"_{part[1:]}" if part.startswith(".") else part or "_" for part in parts)


def with_file_names(splits: Mapping[str, DetectionDataset]) -> dict[str, DetectionDataset]:
    """The data sets by such names of their splits as files and folders can have: `_` for the slashes of a path."""
    safe = [make_unhidden(UNSAFE.sub("_", name)).replace("/", "_") for name in splits]
    return dict(zip(make_unique(list(splits), safe, str.casefold, Problems()), splits.values(), strict=True))


def flat_names(names: Sequence[str]) -> list[str]:
    """Names without folders: the file's name alone where that is enough to tell it from the others."""
    plain = [name.rpartition("/")[2] for name in names]
    counts = Counter(map(stem_key, plain))
    return [
        name.replace("/", "_") if counts[stem_key(short)] > 1 else short
        for name, short in zip(names, plain, strict=True)
    ]


def stem_key(name: str) -> str:
    """What two names may not share where an annotation has the image's name with another suffix."""
    return name.rpartition(".")[0].casefold()


def make_unique(
    before: Sequence[str], names: Iterable[str], key: Callable[[str], str], problems: Problems
) -> list[str]:
    """The names, each with a number behind it until its key is new; counts those that differ from `before`."""
    taken: set[str] = set()
    done = []
    for old, name in zip(before, names, strict=True):
        stem, dot, suffix = name.rpartition(".")
        new, number = name, 1
        while key(new) in taken:
            number += 1
            new = f"{stem or suffix}_{number}{dot}{suffix if stem else ''}"
        taken.add(key(new))
        done.append(new)
        if new != old:
            problems.add(NEW_NAME, f"{printable(old)}: {new}")
    return done


def class_names(splits: Mapping[str, DetectionDataset], problems: Problems) -> dict[str, str]:
    """Class name -> the name in a text file, for the classes of all splits: no control characters, single spaces.

    ValueError if two classes become one.
    """
    names = dict.fromkeys(name for dataset in splits.values() for name in dataset.classes.names)
    new = {name: UNSAFE.sub("_", " ".join(name.split())) for name in names}
    for name, text in new.items():
        if text != name:
            problems.add(NEW_CLASS, f"{name!r}: {text!r}")
    check_distinct(new)
    return new


def check_distinct(new: Mapping[str, str]) -> None:
    by_text: dict[str, str] = {}
    for name, text in new.items():
        if text in by_text or not text:
            what = f"{by_text[text]!r} and {name!r} would be one class" if text else f"the class {name!r} has no name"
            raise ValueError(f"{what} in the written files: rename one of them first (class_map in the input's config)")
        by_text[text] = name
