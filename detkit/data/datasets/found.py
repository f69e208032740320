"""What a look at a file or folder finds: a format, and how its splits are read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from detkit.checkpoint import CHECKPOINTS
from detkit.utils.console import plural, printable
from detkit.utils.types import Tree

LOOKED_AT = 2_000_000
"""Files below a folder that are listed to find its format."""
SPLIT_NAMES = {
    "train": ("train", "training", "trn", "trainset", "trainingset"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "valset", "validset", "validationset", "devset"),
    "test": ("test", "testing", "tst", "testset"),
}
"""Canonical name of a split -> names that people give it."""


@dataclass(frozen=True)
class FoundData:
    """A data set that a reader recognises.

    format: its name, as in messages ("Pascal VOC"). why: what shows it, in words that follow "because of". splits: name
    of a split -> config node of the data set part that reads it, as {"type": "VocDataset", "root": ..., "split": ...};
    a set without splits has the single name "all". notes: what the user should know of how it is read.
    """

    format: str
    why: str
    splits: Mapping[str, Tree]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """A file or folder, and the files below it, listed once for all readers that look at it."""

    path: Path

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Files below a folder, relative to it and sorted folder by folder; only the first `LOOKED_AT`."""
        return tuple(islice(walk(self.path), LOOKED_AT)) if self.is_folder else ()

    @property
    def is_partial(self) -> bool:
        """Whether a folder may have more files than are listed."""
        return len(self.files) >= LOOKED_AT

    @cached_property
    def suffixes(self) -> Counter[str]:
        """How many files there are of each suffix, in lower case."""
        return Counter(file.suffix.lower() for file in self.files)

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The files with one of the suffixes (lower case), relative to the folder."""
        return [file for file in self.files if file.suffix.lower() in suffixes]


def is_file(path: Path) -> bool:
    """Whether there is such a file; not if its name is one that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, relative to it; links to folders are followed once.

    Hidden ones are left out, and the folders of detkit's runs, whose pictures are no data.
    """
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if parent != str(folder) and is_run(Path(parent)):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        relative = Path(parent).relative_to(folder)
        yield from (relative / file for file in sorted(files) if not file.startswith("."))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return is_file(folder / "config.yaml") and ((folder / "metrics.jsonl").exists() or (folder / CHECKPOINTS).is_dir())


def canonical_split(name: str) -> str | None:
    """train, val or test for a name such as "valid", "Training" or "instances_val2017"; None for any other."""
    words = re.split(r"[\W_]+|(?<=[a-z])(?=\d)", name.lower())
    for canonical, names in SPLIT_NAMES.items():
        if any(word in names for word in words):
            return canonical
    return None


def split_synonyms(name: str) -> tuple[str, ...]:
    """The names that people give the split of a name such as "valid"; none for a name that is no split's."""
    canonical = canonical_split(name)
    return SPLIT_NAMES[canonical] if canonical is not None else ()


def named_splits(names: Sequence[str]) -> list[str]:
    """The names under which splits are found: train, val or test where a single one has such a name, else their own."""
    canonical = [canonical_split(name) or name for name in names]
    return [short if canonical.count(short) == 1 else name for short, name in zip(canonical, names, strict=True)]


def split_folder(file: Path) -> Path | None:
    """The folder above a file whose name is that of a split, the uppermost one; None without any."""
    parents = [parent for parent in reversed(file.parents) if parent.name]
    return next((parent for parent in parents if canonical_split(parent.name)), None)


def outside_splits(files: Sequence[Path], kind: str) -> tuple[str, ...]:
    """A note on files that are in no folder of a split, where others are; none without such files."""
    if not files:
        return ()
    counted = plural(len(files), f"{kind} is", f"{kind}s are")
    return (f"{counted} in no folder of a split, as {printable(files[0])}, and not read",)
