"""WebDataset: tar files in which an image and a JSON file of the same name are a sample."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.records import BadBoxes
from detkit.data.datasets.shard_files import (
    Shards,
    Source,
    beside,
    find_shards,
    find_splits,
    name_of,
    open_ahead,
    read_at,
    size_of,
)
from detkit.data.datasets.shards import ShardDataset, ShardEntry, by_shard, cached_index, entry_of, parse_entry
from detkit.registry import DATASETS
from detkit.structures import ClassMap
from detkit.utils.console import printable

SAMPLE = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)")
"""Key of a sample, up to the first dot of a member's name, and what follows."""
CLASS_FILE = "classes.json"
"""Beside the shards: {"names": [...], "ids": [...]}."""
BLOCK = 512
LARGEST_JSON = 64 * 2**20
"""Bytes of the annotation of one image."""


@DATASETS.register()
class WebDataset(ShardDataset):
    """Images in tar files, each with a JSON file: `0001.jpg` and `0001.json`; nothing is unpacked.

    The JSON has `objects` (or `annotations`), a list of mappings or a mapping of lists, with `bbox` (x, y, width,
    height in pixels), `category` and, where there are any, `area` and `iscrowd`; beside them may be `width`, `height`,
    `image_id` and `file_name`.
    The tar files are read once for an index, which is kept in the cache; an image is then one reading by position.

    Args:
        root: a .tar file, a folder of them, subfolders included, or a list; of this machine or an address (https://,
            s3://, hf://datasets/), from which only what is needed is read. Braces stand for several files, as in
            https://host/train-{000000..000009}.tar; a web server (https://) lists no folders.
        split: of the files of a folder, those of this split by their names or folders, as train in train-000000.tar;
            null takes all.
        labels: names of the classes that the JSON files give by number, from 0.
        class_names: the classes and their order; null takes those of classes.json beside the shards, or else all names
            in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = place.with_suffix(".tar") if place.is_folder else [place.path] * (place.path.suffix.lower() == ".tar")
        if not files or not has_samples(place.path / files[0]):
            return None
        return find_splits(place, files, "WebDataset", "WebDataset", f"images with JSON files in {files[0].name}")

    def __init__(
        self,
        *,
        root: Shards,
        split: str | None = None,
        labels: list[str] | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        shards = find_shards(root, ".tar", split)
        name = name_of(root, split)
        entries = cached_index(shards, {"labels": labels}, lambda: index_shards(shards, labels))
        self.finish_shards(
            name, shards, entries, declared_classes(beside(shards[0], CLASS_FILE)), bad_boxes=bad_boxes,
            keep_empty=keep_empty, class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip

    def image_content(self, index: int) -> bytes:
        return read_at(self.sources[self.shard[index]], int(self.place[index]), int(self.part[index]))


def has_samples(path: Path) -> bool:
    """Whether the first members of a tar file are images and JSON files of the same names."""
    try:
        with tarfile.open(path, "r:") as file:
            names = [member.name for _, member in zip(range(8), file, strict=False)]
    except (OSError, tarfile.TarError):
        return False
    keys = [(match[1], match[2].lower()) for n in names if (match := SAMPLE.fullmatch(n))]
    images = {key for key, suffix in keys if f".{suffix}" in image_suffixes()}
    return bool(images & {key for key, suffix in keys if suffix == "json"})


def declared_classes(source: Source | None) -> ClassMap | None:
    """The classes of a classes.json, if there is one; ValueError if it can't be read."""
    if source is None:
        return None
    try:
        content = json.loads(read_at(source, 0, size_of(source)).decode("utf-8"))
        names = tuple(str(name) for name in content["names"])
        ids = tuple(int(i) for i in content.get("ids", range(len(names))))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ValueError(f'{source}: must be {{"names": [...], "ids": [...]}}') from None
    if len(set(names)) != len(names) or len(set(ids)) != len(names) or len(ids) != len(names):
        raise ValueError(f"{source}: names and ids must be as many, and each there once")
    return ClassMap(names, ids)


def index_shards(shards: Sequence[Source], labels: list[str] | None) -> Iterator[ShardEntry]:
    """The entries of all shards, in the order of files and members."""

    def index(number: int, source: Source) -> Iterator[ShardEntry]:
        members, annotations = read_members(source)
        for key, files in samples_of(source, members).items():
            yield sample_entry(source, number, key, files, annotations, labels)

    return by_shard(shards, index)


def read_members(source: Source) -> tuple[list[tarfile.TarInfo], dict[int, bytes]]:
    """The members of a tar file, and what is in its JSON files by their places; images are stepped over.

    ValueError if it is no tar file, or was cut off.
    """
    where, size, annotations = printable(source), size_of(source), {}
    try:
        with open_ahead(source) as opened, tarfile.open(fileobj=opened, mode="r:") as file:
            members = []
            for member in file:
                if member.isfile():
                    members.append(member)
                    if member.name.lower().endswith(".json") and member.size <= LARGEST_JSON:
                        opened.seek(member.offset_data)
                        annotations[member.offset_data] = opened.read(member.size)
            end = file.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError, UnicodeError) as error:
        is_packed = size > 1 and read_at(source, 0, 2) == b"\x1f\x8b"
        packed = "; it seems to be compressed: unpack it" if is_packed else ""
        raise ValueError(f"{where}: not a tar file ({error}){packed}") from None
    if any(member.offset_data + member.size > size for member in members) or end + BLOCK > size:
        raise ValueError(f"{where}: the tar file ends too early, as one that was not copied or written to its end")
    return members, annotations


def samples_of(path: Source, members: list[tarfile.TarInfo]) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Key -> suffix -> member; ValueError for a name that is there twice.

    Members with other names, such as hidden ones, are no part of a sample.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        if match := SAMPLE.fullmatch(member.name):
            files = samples.setdefault(match[1], {})
            if files.setdefault(match[2].lower(), member) is not member:
                raise ValueError(f"{path}/{member.name} is there twice: write the shard again with each name once")
    return samples


def sample_entry(
    path: Source,
    number: int,
    key: str,
    files: dict[str, tarfile.TarInfo],
    annotations: Mapping[int, bytes],
    labels: list[str] | None,
) -> ShardEntry:
    """The entry of a sample; ValueError unless it has one image and one JSON file."""
    where = f"{path}/{key}"
    images = [member for suffix, member in files.items() if f".{suffix.rpartition('.')[2]}" in image_suffixes()]
    annotation = files.get("json")
    if len(images) != 1 or annotation is None:
        there = ", ".join(f".{suffix}" for suffix in files)
        raise ValueError(f"{where}: a sample needs one image and one .json file; it has {there}")
    if annotation.size > LARGEST_JSON:
        raise ValueError(f"{where}.json has {annotation.size} bytes, the limit is {LARGEST_JSON}")
    image = images[0]
    row = parse_entry(annotations[annotation.offset_data], f"{where}.json")
    content = partial(read_at, path, image.offset_data, image.size)
    name = str(PurePosixPath(image.name))
    return entry_of(row, f"{where}.json", number, image.offset_data, image.size, name, labels, content)
