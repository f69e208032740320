"""The contract of a data set."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from detkit.data.datasets.images import ImageOptions, read_image, read_size
from detkit.data.datasets.records import Problems, Records, RecordsBuilder, some
from detkit.structures import ClassMap

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("detkit")


class DetectionDataset:
    """Images with boxes: a subclass's constructor calls `finish` with its classes and records.

    classes: names and category ids. records: annotations as flat arrays. problems: boxes that were
    dropped or clipped, by file. image_options: how images are read, `data.images` of the config. left_out: images
    that could not be used, each with the reason. reads_files: whether the images are the files that records name;
    a subclass with a `load_image` of its own that only opens them otherwise says so.
    """

    name: str
    classes: ClassMap
    records: Records
    problems: Problems
    image_options = ImageOptions()
    left_out: Mapping[str, str] = MappingProxyType({})
    reads_files = True

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "load_image" in vars(cls) and "reads_files" not in vars(cls):
            cls.reads_files = False

    def __len__(self) -> int:
        return len(self.records)

    def load_image(self, index: int) -> Image:
        """The image as 8-bit RGB, upright."""
        return read_image(self.records.path(index), self.image_options)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image file, upright, by its header."""
        return read_size(self.records.path(index), self.image_options)

    def checked_image(self, index: int) -> Image:
        """`load_image`, held against the size that the annotation states; ValueError if they differ."""
        image = self.load_image(index)
        self.check_size(index, (image.height, image.width))
        return image

    def check_size(self, index: int, size: tuple[int, int]) -> None:
        """Raises ValueError if the annotation states another (height, width)."""
        height, width = self.records.sizes[index].tolist()
        if height > 0 and (height, width) != size:
            raise ValueError(
                f"the image has {size[1]}x{size[0]} pixels (upright by EXIF), its annotation says "
                f"{width}x{height}: the boxes can't be trusted. Correct one, or leave the image out of the split"
            )

    def finish(self, name: str, classes: ClassMap, builder: RecordsBuilder, *, keep_empty: bool) -> None:
        """Takes over what a subclass has read; refuses a split without images, warns of dropped boxes."""
        self.name, self.classes, self.problems = name, classes, builder.problems
        records = builder.build()
        if not len(records):
            raise ValueError(f"{name}: the split has no images")
        if not keep_empty:
            records = without_empty(records, name)
        self.records = records
        self.problems.report(name)
        if records.is_ignore.all():
            log.warning("%s: no image has a usable box: there is nothing to learn or to evaluate", name)
        for alike in much_alike(classes.names):
            log.warning("%s: the classes %s differ in case or spaces only and count as different", name, some(alike))

    def summary(self) -> str:
        """Counts, on one line."""
        records = self.records
        counts = Counter(records.labels[~records.is_ignore].tolist())
        classes = ", ".join(f"{n} {counts.get(k, 0)}" for k, n in enumerate(self.classes.names[:12]))
        more = f" and {len(self.classes) - 12} classes more" if len(self.classes) > 12 else ""
        boxed = {int(i) for i in _image_of_box(records)}
        parts = [
            f"{len(records)} images ({len(records) - len(boxed)} without objects)",
            f"{int((~records.is_ignore).sum())} boxes: {classes}{more}",
        ]
        if records.is_ignore.any():
            parts.append(f"{int(records.is_ignore.sum())} ignore regions")
        if self.problems.dropped:
            parts.append(f"{self.problems.dropped_count} bad boxes dropped in {some(list(self.problems.dropped))}")
        if self.problems.clipped:
            count = sum(self.problems.clipped.values())
            parts.append(f"{count} boxes clipped in {len(self.problems.clipped)} images")
        return f"{self.name}: " + "; ".join(parts)

    def content_hash(self) -> str:
        """Changes when annotations, names or classes do."""
        import hashlib

        text = f"{self.records.content_hash()} {self.classes}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _image_of_box(records: Records) -> list[int]:
    import numpy as np

    counts = np.diff(records.ends, prepend=0)
    image = np.repeat(np.arange(len(records)), counts)
    found: list[int] = np.unique(image[~records.is_ignore]).tolist()
    return found


class Subset(DetectionDataset):
    """Some images of another data set, in the order of `indices`."""

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int], name: str) -> None:
        self.whole, self.indices = dataset, list(indices)
        self.image_options, self.reads_files = dataset.image_options, dataset.reads_files
        self.name, self.classes, self.problems = name, dataset.classes, Problems()
        if not self.indices:
            raise ValueError(f"{name}: no image of the {len(dataset)} is in it")
        self.records = chosen_records(dataset.records, self.indices, name)

    def load_image(self, index: int) -> Image:
        """See `DetectionDataset.load_image`."""
        return self.whole.load_image(self.indices[index])


def without_empty(records: Records, name: str) -> Records:
    """The images with at least one object; an error if none has."""
    kept = _image_of_box(records)
    if not kept:
        raise ValueError(f"{name}: keep_empty: false removed all {len(records)} images, for none has a usable box")
    return chosen_records(records, kept, name)


def chosen_records(records: Records, indices: Sequence[int], name: str) -> Records:
    """The annotations of some images."""
    builder = RecordsBuilder(name, "error")
    for i in indices:
        a = records.annotation(i)
        height, width = records.sizes[i].tolist()
        builder.add(
            int(records.image_ids[i]), records.path(i), (height, width), a.boxes.tolist(), a.labels.tolist(),
            a.is_ignore.tolist(), a.area.tolist(),
        )  # fmt: skip
    return builder.build()


def named_classes(found: Sequence[tuple[int, str]], stated: Sequence[str] | None, name: str) -> ClassMap:
    """Declared (id, name) pairs, sorted by id, held against the class names that a config states."""
    pairs = sorted(found)
    classes = ClassMap(tuple(n for _, n in pairs), tuple(i for i, _ in pairs))
    if stated is not None and set(stated) != set(classes.names):
        extra = [n for n in stated if n not in classes.names]
        missing = [n for n in classes.names if n not in stated]
        raise ValueError(
            f"{name}: class_names states {len(stated)} classes, the data set has {len(classes)}"
            + (f"; not in the data: {some(extra)}" if extra else "")
            + (f"; not stated: {some(missing)}" if missing else "")
            + ". Leave class_names out to take those of the data set"
        )
    if stated is not None:
        ids = dict(zip(classes.names, classes.ids, strict=True))
        classes = ClassMap(tuple(stated), tuple(ids[n] for n in stated))
    return classes


def much_alike(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that are one and the same but for case and spaces, as after a slip."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def check_files(paths: Sequence[str], name: str) -> None:
    """Raises FileNotFoundError that names missing files; one directory listing a folder."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for text in paths:
        path = Path(text)
        if path.parent not in listed:
            listed[path.parent] = {p.name for p in path.parent.iterdir()} if path.parent.is_dir() else set()
        if path.name not in listed[path.parent]:
            missing.append(text)
    if missing:
        raise FileNotFoundError(f"{name}: {len(missing)} of {len(paths)} images are missing: {some(missing)}")


def check_same_classes(train: DetectionDataset, val: DetectionDataset) -> None:
    """Raises ValueError that lists the differences, unless both have the same classes in the same order."""
    a, b = train.classes, val.classes
    if a == b:
        return
    only_a, only_b = [n for n in a.names if n not in b.names], [n for n in b.names if n not in a.names]
    if only_a or only_b:
        detail = f"only in train: {some(only_a) or 'none'}; only in val: {some(only_b) or 'none'}"
    else:
        pairs = [
            f"{n}: id {a.ids[i]}, {b.ids[b.names.index(n)]}"
            for i, n in enumerate(a.names)
            if b.names.index(n) != i or a.ids[i] != b.ids[b.names.index(n)]
        ]
        detail = f"the same names with other ids or another order: {some(pairs)}"
    raise ValueError(f"{train.name} and {val.name} have different classes: {detail}")
