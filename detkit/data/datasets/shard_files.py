"""The files of a data set in shards: which there are, on this machine and elsewhere, and their bytes by position."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from detkit.data.datasets.found import FoundData, Place, canonical_split, named_splits
from detkit.hub import is_remote, local_path
from detkit.hub.ranges import HTTP, NoAccess, RangeReader, RemoteFile, look_up, read_range
from detkit.registry import AddressStr
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree

Source: TypeAlias = str | RemoteFile
"""A shard: the path of a file of this machine, or a file elsewhere."""
S = TypeVar("S", str, RemoteFile)
Shards = Annotated[AddressStr | list[AddressStr], "a path, an address, or a list of them"]
NUMBERED = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")
"""The number at the end of a shard's name."""
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")
"""Numbers from one to another, or words, as in shards-{000..009}.tar and {train,val}.tar."""
MOST_SHARDS = 1_000_000
AHEAD = 2**16
"""Bytes that reading a shard from one place to the next takes at a time."""


def find_shards(root: str | Sequence[str], suffix: str, split: str | None) -> list[Source]:
    """The shards at files, folders and addresses, and of folders only those of a split.

    Braces stand for several: shards-{000..009}.tar. Raises FileNotFoundError for what is not there, which lists the
    splits of a folder without this one, and ValueError for the folder of a web server, which lists no files.
    """
    names = [name for given in ([root] if isinstance(root, str) else root) for name in expand_braces(given)]
    if not names:
        raise ValueError("root: [] names no shard: name a file, a folder or an address")
    remote = [name for name in names if is_elsewhere(name)]
    for name in remote:
        if name.startswith(HTTP) and urlsplit(name).path.endswith("/"):
            raise ValueError(
                f"{printable(name)}: a web server lists no files: name the shards themselves, as in "
                f"{printable(name)}shards-{{000..009}}{suffix}, or as a list"
            )
    files = dict(zip(remote, look_up(remote) if remote else (), strict=True))
    shards: list[Source] = []
    for name in names:
        shards += (
            remote_shards(name, files[name], suffix, split) if name in files else local_shards(name, suffix, split)
        )
    if twice := [source for source, count in Counter(shards).items() if count > 1]:
        raise ValueError(f"{printable(twice[0])}: this shard is named twice, so its images would be there twice")
    return shards


def name_of(root: str | Sequence[str], split: str | None) -> str:
    """What messages call the data set of some shards."""
    name = root if isinstance(root, str) else shorten_list(root, 2)
    return f"{name} ({split})" if split else name


def is_elsewhere(name: str) -> bool:
    """Whether a text is an address of no file on this machine."""
    return is_remote(name) and not name.startswith("file://")


def expand_braces(name: str) -> list[str]:
    """The names that braces stand for; a file or folder that has them in its name is itself."""
    match = BRACES.search(name)
    if match is None or (not is_elsewhere(name) and os.path.exists(name)):
        return [name]
    if match[3] is None:
        first, last, width = int(match[1]), int(match[2]), len(match[1])
        if not 0 <= last - first < MOST_SHARDS:
            raise ValueError(f"{printable(name)}: {match[0]} must count up, to at most {MOST_SHARDS} shards")
        parts = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        parts = match[3].split(",")
    return [n for part in parts for n in expand_braces(name[: match.start()] + part + name[match.end() :])]


def local_shards(name: str, suffix: str, split: str | None) -> list[str]:
    """The shards at a file or folder of this machine."""
    root = local_path(name)
    if root.is_file():
        return [str(root)]
    files = {str(root / file): file for file in Place(root).with_suffix(suffix)}
    problem = "" if root.exists() else "there is no such file or folder"
    return chosen_shards(str(root), files, suffix, split, problem)


def remote_shards(name: str, files: Sequence[RemoteFile], suffix: str, split: str | None) -> list[RemoteFile]:
    """The same of an address, at which `files` are."""
    if [file.address for file in files] == [name]:
        return list(files)
    below = {file: Path(file.address.removeprefix(name).lstrip("/")) for file in files if file.address.endswith(suffix)}
    return chosen_shards(name, {f: p for f, p in below.items() if not is_hidden(p)}, suffix, split)


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def chosen_shards(root: str, files: Mapping[S, Path], suffix: str, split: str | None, problem: str = "") -> list[S]:
    """Those of a folder's shards that belong to a split; FileNotFoundError that lists what is there if there are none.

    files: each with its path, from which its split is found. problem: why there are none, if that is known.
    """
    chosen = [source for source, path in files.items() if split is None or split in split_names(path)]
    if not chosen:
        names = sorted({split_of(path) for path in files.values()})
        there = f"its splits are {shorten_list(names)}" if names else f"it has no {suffix} file"
        of_split = f" of {split!r}" if split else ""
        raise FileNotFoundError(f"{printable(root)}: no shards{of_split}: {problem or there}")
    return chosen


def split_of(path: Path) -> str:
    """The split of a shard by its name, without the number, or that of its folder: train of train-00000-of-2.tar."""
    for name in (path.stem, *(folder.name for folder in path.parents)):
        text = NUMBERED.sub("", name)
        if text and canonical_split(text):
            return text
    return NUMBERED.sub("", path.stem) or "all"


def split_names(path: Path) -> set[str | None]:
    """What a config may call the split of a shard: the name of its files, or that which all splits of its kind have."""
    return {split_of(path), canonical_split(split_of(path))}


def find_splits(place: Place, files: Sequence[Path], format_name: str, part: str, why: str) -> FoundData:
    """The splits of shards below a folder (or of the place itself, a shard)."""
    if not place.is_folder:
        return FoundData(format_name, why, {"all": {"type": part, "root": str(place.path)}})
    names = sorted({split_of(file) for file in files})
    node: Tree = {"type": part, "root": str(place.path)}
    if len(names) == 1 and canonical_split(names[0]) is None:
        return FoundData(format_name, why, {"all": node})
    splits = zip(named_splits(names), names, strict=True)
    return FoundData(format_name, why, {split: {**node, "split": name} for split, name in splits})


def state_of(source: Source) -> str:
    """Size and version of a shard: what changes when it is written again; empty if the server states no version."""
    if isinstance(source, RemoteFile):
        return f"{source.size} {source.version}" if source.version else ""
    state = os.stat(source)
    return f"{state.st_size} {state.st_mtime_ns}"


def size_of(source: Source) -> int:
    """Bytes of a shard."""
    return source.size if isinstance(source, RemoteFile) else os.stat(source).st_size


def open_ahead(source: Source) -> BinaryIO:
    """A shard to be read from its beginning to its end with steps over most of it."""
    if isinstance(source, RemoteFile):
        return cast(BinaryIO, io.BufferedReader(RangeReader(source), AHEAD))
    return open(source, "rb")


def beside(source: Source, name: str) -> Source | None:
    """A file in the folder of a shard; None if it is not there."""
    if isinstance(source, RemoteFile):
        parts = urlsplit(source.address)
        try:
            return look_up([parts._replace(path=f"{parts.path.rpartition('/')[0]}/{name}").geturl()])[0][0]
        except (FileNotFoundError, NoAccess):  # stores that hide what is there from others say so of what is not, too
            return None
    path = Path(source).parent / name
    return str(path) if path.is_file() else None


def read_at(source: Source, place: int, count: int) -> bytes:
    """Bytes of a shard by position."""
    if isinstance(source, RemoteFile):
        return read_range(source, place, count)
    with open(source, "rb") as file:
        file.seek(place)
        content = file.read(count)
    if len(content) < count:
        raise ValueError(f"{source} ends too early: {count} bytes at {place} were expected")
    return content
