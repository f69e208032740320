"""Pascal VOC annotations: an XML file for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_formats import from_one_based
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import refuse_duplicates
from detkit.data.datasets.problems import NO_SIZE, OTHER_KEYS, PARTS, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.data.datasets.voc_file import XmlReader
from detkit.data.datasets.voc_find import find_voc
from detkit.data.datasets.voc_layout import VocFile, read_files, read_listed
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import plural


@DATASETS.register()
class VocDataset(DetectionDataset):
    """Boxes of Pascal VOC's XML files, one for each image; `difficult` boxes are ignore regions.

    Args:
        root: folder of the XML files and images, in subfolders or not. An XML file belongs to the image of its own name
            beside it, in the folder that corresponds to its own, or anywhere below; else to the image in <filename>.
        split: name of a list of images in ImageSets/Main, as the VOC challenges have it, in ImageSets or in the root;
            null takes every XML file.
        annotations: folder of the XML files; null takes Annotations of the root for a split, else the root.
        encoding: how XML files are read that are not Unicode and not in the encoding that they declare, as gb18030
            or cp1252; null guesses it and warns.
        class_names: the classes and their order; null takes the names in all XML files of the folder, of every split,
            in alphabetical order, so that every split has the same.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        one_based: pixels are counted from 1 and the last one belongs to the box, as in the VOC challenges; x1 and y1
            then lose one.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        return find_voc(place)

    def __init__(
        self,
        *,
        root: PathStr,
        split: str | None = None,
        annotations: PathStr | None = None,
        encoding: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        one_based: bool = True,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        name, problems = f"{root} ({split})" if split is not None else annotations or root, Problems()
        read = XmlReader(encoding, problems)
        layout = Path(root), Path(annotations) if annotations is not None else None
        files = read_files(*layout, name, read) if split is None else read_listed(*layout, split, name, read)
        class_list = sorted({item.name for annotation in files.annotations for item in annotation.objects})
        if not class_list:
            raise ValueError(f"{name}: no file in {files.where} has an object, so there is nothing to detect")
        records = [to_record(file, one_based, problems) for file in files.split]
        refuse_duplicates(records, name)
        self.finish_images(
            name, records, folder=files.images, classes=class_list, annotated=files.annotated, problems=problems,
            bad_boxes=bad_boxes, keep_empty=keep_empty, class_names=class_names, class_map=class_map,
            ignore_classes=ignore_classes,
        )  # fmt: skip
        tags = (
            (file.image, Counter(t for item in file.annotation.objects for t in item.unread)) for file in files.split
        )
        self.unread_tags = {image: counts for image, counts in tags if counts}

    def unread(self, indices: Sequence[int]) -> Problems:
        problems, counts = Problems(), Counter[str]()
        for i in indices:
            counts.update(self.unread_tags.get(self.records.path(i), {}))
        for tag, count in sorted(counts.items()):
            problems.add(OTHER_KEYS, f"<{tag}> of {plural(count, 'object')}")
        return problems


def to_record(file: VocFile, one_based: bool, problems: Problems) -> ImageRecord:
    """The record of one file; counts missing sizes, parts, and boxes that begin at 0 where pixels count from 1."""
    objects = [(item, f"{file.source}, box {i}") for i, item in enumerate(file.annotation.objects, start=1)]
    if file.annotation.size[0] < 0:
        problems.add(NO_SIZE, file.source)
    for item, where in objects:
        if item.parts:
            problems.add(PARTS, f"{where} ({item.name})", count=item.parts)
    moved = [from_one_based(item.box, where, problems) for item, where in objects] if one_based else None
    return ImageRecord(
        path=file.image,
        boxes=[item.box for item, _ in objects] if moved is None else [corners for corners, _ in moved],
        names=[item.name for item, _ in objects],
        size=file.annotation.size,
        is_ignore=[item.difficult for item, _ in objects],
        xywh=None if moved is None else [sides for _, sides in moved],
        source=file.source,
    )
