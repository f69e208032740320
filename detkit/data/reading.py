"""All splits of whatever holds data: a folder, a file, or a config."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from detkit.config import load_config
from detkit.config.find import find_config
from detkit.data.build import SPLITS, read_dataset, real_paths, with_options
from detkit.data.datasets.auto import find_data, split_node
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.found import SPLIT_NAMES, canonical_split
from detkit.hub import local_path
from detkit.registry import DATASETS
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree


@dataclass(frozen=True)
class Source:
    """The data sets of a place by the names of their splits, and where they come from in words.

    unread: why other splits can't be read, by their names.
    """

    splits: dict[str, DetectionDataset]
    text: str
    notes: tuple[str, ...] = ()
    unread: Mapping[str, Exception] = field(default_factory=dict)

    def choose(self, names: Sequence[str]) -> Source:
        """Some of the splits, or all but those that only repeat images of others, as trainval does.

        Raises ValueError for a name that no split has, and what keeps a named one from being read.
        """
        for name in names:
            if name in self.unread:
                raise self.unread[name]
            if name not in self.splits:
                raise ValueError(f"--splits: no split {name!r}, only {shorten_list([*self.splits, *self.unread])}")
        unions = [] if names else union_splits(self.splits)
        kept = {name: d for name, d in self.splits.items() if name in names or (not names and name not in unions)}
        repeats = "is left out: its images are those of other splits (detkit data convert --splits takes it)"
        unread = {} if names else self.unread
        return Source(kept, self.text, (*self.notes, *(f"{name} {repeats}" for name in unions)), unread)

    def check_complete(self) -> None:
        """Raises ValueError if a split can't be read, with what `--splits` leaves it out."""
        for name, error in self.unread.items():
            known = shlex.join(self.splits)
            raise ValueError(f"{error}. --splits {known} leaves {name} out") from error


def read_source(place: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Source:
    """Reads every split of a folder, file or address of data, or train and val of a config; logs no problems.

    Raises what `find_data`, `load_config` and, unless one of several splits can be read, the readers raise.
    """
    if is_config(Path(place)):
        config = load_config(place, overrides)
        with quiet_problems():
            splits = {s: with_options(read_dataset(config, s), config.options("data.classes")) for s in SPLITS}
        return Source(splits, f"train and val of the config {config.name}")
    found = find_data(local_path(place))
    readable: dict[str, DetectionDataset] = {}
    unread: dict[str, Exception] = {}
    with quiet_problems():
        for split in sorted(found.splits, key=split_position):
            try:
                readable[split] = DATASETS.build(found.splits[split])
            except (ValueError, OSError) as error:
                unread[split] = error
    if not readable:
        raise next(iter(unread.values()))
    return Source(readable, f"{found.format}, because of {found.why}", found.notes, unread)


def read_one(place: str | os.PathLike[str], split: str | None) -> tuple[Tree, DetectionDataset]:
    """The config node of a split of a place, and its data set. split: None for the only one.

    Raises ValueError that lists the splits if there is no such one, or several to choose from.
    """
    found = find_data(local_path(place))
    if split is None and len(found.splits) > 1:
        names = shorten_list([str(name) for name in sorted(found.splits, key=split_position)])
        raise ValueError(f"{printable(place)} has the splits {names}: choose one with --split")
    node = split_node(found, split or next(iter(found.splits)), printable(place))
    dataset: DetectionDataset = DATASETS.build(node)
    return node, dataset


def describe_node(node: Tree) -> str:
    """A config node of a data set as YAML in one line, with its key."""
    import yaml

    text = yaml.safe_dump({"dataset": node}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return str(text).strip()


def split_position(split: str) -> tuple[int, str]:
    """A key that sorts splits as people name them: train, val, test, then all others."""
    names = list(SPLIT_NAMES)
    return (names.index(split) if split in names else len(names)), split


@contextmanager
def quiet_problems(*, everything: bool = False) -> Iterator[None]:
    """While the context is active, readers do not log what they count, or nothing at all."""
    logs = [logging.getLogger(name) for name in ("detkit.problems", *["detkit"] * everything)]
    before = [log.disabled for log in logs]
    for log in logs:
        log.disabled = True
    try:
        yield
    finally:
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled


def is_config(path: Path) -> bool:
    """Whether a path is a config of detkit, by its file or its name, and not the data.yaml of YOLO."""
    if path.is_dir() or (path.exists() and path.suffix.lower() not in (".yaml", ".yml")):
        return False
    try:
        text = Path(find_config(path)).read_bytes()
    except (ValueError, OSError):
        return False
    keys = {line.partition(b":")[0].strip() for line in text.splitlines() if line[:1].isalpha() or line[:1] == b"_"}
    return bool(keys & {b"_base_", b"data", b"backbone", b"losses"})


def union_splits(splits: Mapping[str, DetectionDataset]) -> list[str]:
    """Splits with an uncommon name whose images are all in others, such as trainval beside train and val."""
    images = {name: real_paths(dataset) for name, dataset in splits.items()}
    unions = []
    for name, files in images.items():
        others: Iterable[set[str]] = (f for other, f in images.items() if other != name and canonical_split(other))
        if canonical_split(name) is None and files and files <= set().union(*others):
            unions.append(name)
    return unions


def describe_place(place: str | os.PathLike[str], source: Source) -> list[str]:
    """What was found, and for each split what it has and what is wrong with it."""
    lines = [f"{printable(place)}: {source.text}", *(f"note: {note}" for note in source.notes)]
    for split, dataset in source.splits.items():
        lines += [f"{split}: {dataset.counts()}", *(f"  {line}" for line in dataset.problems.lines())]
    return [*lines, *(f"{split}: can't be read: {error}" for split, error in source.unread.items())]
