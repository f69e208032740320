"""What data sets in shards share: few large files that hold many images, an index of them, and images by position."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_checks import note_corners
from detkit.data.datasets.images import upright_size
from detkit.data.datasets.problems import Problems
from detkit.data.datasets.records import ImageRecord
from detkit.data.datasets.shard_files import Source, state_of
from detkit.hub.cache import cache_folder, locked
from detkit.hub.ranges import THREADS
from detkit.structures import ClassMap
from detkit.utils.console import plural, printable, shorten_list
from detkit.utils.outputs import replacing
from detkit.utils.types import Tree, Value

log = logging.getLogger("detkit")
INDEX_FORMAT = 1
"""Of the cached index; another one is built again."""
OBJECTS = ("objects", "annotations")
BOXES = ("bbox", "box", "boxes")
CLASSES = ("category", "class", "label", "name", "category_name", "labels", "categories", "category_id")
IGNORED = ("iscrowd", "is_crowd", "ignore", "difficult")
"""Names that the columns of objects have, in the order in which they are looked for."""


class ShardEntry(NamedTuple):
    """An image: number of its shard, where it is there, its name, id, (height, width), and its objects.

    place, part: for the reader of the format. boxes: x, y, width, height in pixels.
    """

    shard: int
    place: int
    part: int
    name: str
    image_id: int | None
    size: tuple[int, int]
    boxes: list[list[float]]
    names: list[str]
    is_ignore: list[bool]
    area: list[float] | None

    def record(self, shard: str, problems: Problems) -> ImageRecord:
        """The record of the image, whose path begins with that of its shard; counts boxes that seem to be corners."""
        path = f"{shard}/{self.name}"
        note_corners(self.boxes, self.size, path, problems)
        return ImageRecord(
            path=path,
            boxes=[[x, y, x + w, y + h] for x, y, w, h in self.boxes],
            names=self.names,
            size=self.size,
            is_ignore=self.is_ignore,
            image_id=self.image_id,
            area=self.area,
            xywh=self.boxes,
        )


class ShardDataset(DetectionDataset):
    """Images that lie in shards; a subclass reads the index of a shard, and the bytes of an image.

    shards: the names of the files, which `sources` has with the versions of those that are elsewhere. place, part,
    shard: (B,) of each image.
    """

    reads_files = False

    def finish_shards(
        self,
        name: str,
        shards: Sequence[Source],
        entries: Sequence[ShardEntry],
        classes: ClassMap | None,
        **options: Value,
    ) -> None:
        """`finish_images` for the entries of an index. classes: as declared; None takes the names of the objects."""
        self.sources, self.shards = list(shards), [str(source) for source in shards]
        self.states = [state_of(source) for source in shards]
        problems = Problems()
        records = (entry.record(self.shards[entry.shard], problems) for entry in entries)
        self.finish_images(name, records, folder=name, classes=classes, unlisted=False, problems=problems, **options)
        by_id = {i if entry.image_id is None else entry.image_id: entry for i, entry in enumerate(entries, start=1)}
        kept = [by_id[i] for i in self.records.image_ids.tolist()]
        self.shard = np.array([e.shard for e in kept], np.int64)
        self.place = np.array([e.place for e in kept], np.int64)
        self.part = np.array([e.part for e in kept], np.int64)

    def image_version(self, index: int) -> str | None:
        state = self.states[self.shard[index]]
        return f"{state} {self.place[index]} {self.part[index]}" if state else None


def cached_index(
    shards: Sequence[Source], options: Tree, build: Callable[[], Iterable[ShardEntry]]
) -> list[ShardEntry]:
    """The entries of shards, built once; files of other size or time are read again."""
    return [ShardEntry(*row) for row in cached(shards, options, lambda: list(build()))]


def cached(shards: Sequence[Source], options: Tree, build: Callable[[], Value]) -> Value:
    """What `build` reads from shards, as JSON: kept in the cache until a shard has another size, time or version.

    Of the processes of a machine one reads what is elsewhere, and the others wait for it.
    """
    places = [[str(Path(s).absolute()) if isinstance(s, str) else s.address, state_of(s)] for s in shards]
    if not all(state for _, state in places):
        return build()  # nothing would say when it is out of date
    key = hashlib.sha256(json.dumps([INDEX_FORMAT, options, places]).encode()).hexdigest()[:24]
    path = cache_folder() / "shards" / f"{key}.json.gz"
    if (value := read_cached(path)) is not None:
        return value
    with contextlib.ExitStack() as stack:
        if any(not isinstance(source, str) for source in shards):
            with contextlib.suppress(OSError):  # a cache that can't be written
                stack.enter_context(locked(path))
            if (value := read_cached(path)) is not None:
                return value
        value = build()
        with contextlib.suppress(OSError):  # it is only built again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as packed:
                packed.write(json.dumps(value).encode())
    return value


def read_cached(path: Path) -> Value:
    """The content of a file of the cache; None if it is not there or damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, EOFError):
        return None


def by_shard(shards: Sequence[Source], build: Callable[[int, Source], Iterable[ShardEntry]]) -> Iterator[ShardEntry]:
    """The entries of all shards in their order; several shards that are elsewhere are read at a time."""
    if all(isinstance(source, str) for source in shards):
        for number, source in enumerate(shards):
            yield from build(number, source)
        return
    log.info("%s: reading the annotations of %s for an index", printable(shards[0]), plural(len(shards), "shard"))
    pool = ThreadPoolExecutor(THREADS)
    try:
        for entries in pool.map(lambda i: list(build(i, shards[i])), range(len(shards))):
            yield from entries
    finally:
        pool.shutdown(cancel_futures=True)


def entry_of(
    row: Mapping[str, object], where: str, shard: int, place: int, part: int, name: str, labels: Sequence[str] | None,
    content: Callable[[], bytes],
) -> ShardEntry:  # fmt: skip
    """The entry of a row of a table, or of a JSON file; ValueError that names it (`where`) for what can't be read.

    labels: names of numbered classes. content: gives the image, for a row that does not state its size.
    """
    stated = [row[key] for key in OBJECTS if key in row]
    if not stated:
        raise ValueError(f"{where}: has none of {' and '.join(OBJECTS)}; an image without objects has an empty list")
    objects = object_columns(next((value for value in stated if value is not None), []), where)
    boxes = [box_of(box, f"{where}, box {i}") for i, box in enumerate(column(objects, BOXES), start=1)]
    names = [class_of(v, f"{where}, box {i}", labels) for i, v in enumerate(column(objects, CLASSES), start=1)]
    if len(names) != len(boxes):
        raise ValueError(
            f"{where}: {plural(len(boxes), 'box', 'boxes')} and {plural(len(names), 'class', 'classes')}; the objects "
            f"have the columns {shorten_list(list(objects)) or 'none'}, and need {BOXES[0]} and {CLASSES[0]}"
        )
    ignored = [bool(v) for v in column(objects, IGNORED)] or [False] * len(boxes)
    area = [number_of(v, f"{where}: area") for v in column(objects, ("area",))] or None
    if len(ignored) != len(boxes) or len(area or boxes) != len(boxes):
        raise ValueError(f"{where}: its columns of objects have different lengths")
    size = (whole_of(row.get("height"), where), whole_of(row.get("width"), where))
    if min(size[0] or 0, size[1] or 0) < 1:
        size = size_of_content(where, content)
    image_id = row.get("image_id", row.get("id"))
    file_name = row.get("file_name")
    name = file_name if isinstance(file_name, str) and file_name else name
    height, width = size[0] or 0, size[1] or 0
    number = whole_of(image_id, where, text=True)
    return ShardEntry(shard, place, part, name, number, (height, width), boxes, names, ignored, area)


def size_of_content(where: str, content: Callable[[], bytes]) -> tuple[int, int]:
    """(height, width) by the header of an image; (-1, -1) if it can't be read, which decoding it reports."""
    try:
        return upright_size(content(), name=where)
    except (ValueError, OSError):
        return -1, -1


def object_columns(objects: object, where: str) -> Mapping[str, Sequence[object]]:
    """Objects as columns, from columns or from one mapping for each."""
    if isinstance(objects, Mapping):
        if not all(isinstance(v, (list, tuple)) for v in objects.values() if v is not None):
            raise ValueError(f"{where}: the columns of its objects must be lists")
        return {key: value for key, value in objects.items() if value is not None}
    if not isinstance(objects, (list, tuple)) or not all(isinstance(item, Mapping) for item in objects):
        raise ValueError(f"{where}: its objects must be a list of mappings, or a mapping of lists")
    keys = list(dict.fromkeys(key for item in objects for key in item))
    return {key: [item.get(key) for item in objects] for key in keys}


def column(objects: Mapping[str, Sequence[object]], names: Sequence[str]) -> Sequence[object]:
    """The first column that there is of these names."""
    return next((objects[name] for name in names if name in objects), ())


def box_of(value: object, where: str) -> list[float]:
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise ValueError(f"{where}: a box must be four numbers, not {value!r:.60}")
    return [number_of(v, where) for v in value]


def number_of(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {value!r:.60} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where}: a number has too many digits") from None


def whole_of(value: object, where: str, *, text: bool = False) -> int | None:
    """A whole number; None for None. text: whether a text of digits is one."""
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63 and value == int(value):
        return int(value)
    if text and isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) < 19 else None  # numbered instead
    raise ValueError(f"{where}: {value!r:.60} is not a whole number")


def class_of(value: object, where: str, labels: Sequence[str] | None) -> str:
    """The name of a class that is stated by name or number."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and labels is not None and 0 <= value < len(labels):
        return labels[value]
    known = "no names are declared" if labels is None else f"only {plural(len(labels), 'name')} are declared"
    raise ValueError(f"{where}: the class {value!r:.60} is neither a name nor the number of one; {known}: set `labels`")


def parse_entry(content: bytes, where: str) -> Mapping[str, object]:
    """The mapping in a JSON file."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {type(error).__name__}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be a mapping with `objects`, not {type(row).__name__}")
    return row
