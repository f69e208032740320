"""Pascal VOC annotations: an XML file for each image."""

from __future__ import annotations

from pathlib import Path

from detkit.data.datasets.base import DetectionDataset, named_classes
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import Folders, check_files
from detkit.data.datasets.problems import COUNTS_FROM_ZERO, NO_SIZE, PARTS, UNLISTED
from detkit.data.datasets.records import BadBoxes, RecordsBuilder
from detkit.data.datasets.voc_file import VocAnnotation, XmlReader
from detkit.data.datasets.voc_find import find_voc
from detkit.data.datasets.voc_layout import read_files, read_listed
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import plural, shorten_list


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
        name = f"{root} ({split})" if split is not None else annotations or root
        builder = RecordsBuilder(name, bad_boxes)
        read = XmlReader(encoding, builder.problems)
        layout = Path(root), Path(annotations) if annotations is not None else None
        files = read_files(*layout, name, read) if split is None else read_listed(*layout, split, name, read)
        class_list = sorted({item.name for names in files.annotations for item in names.objects})
        if not class_list:
            raise ValueError(f"{name}: no file in {files.where} has an object, so there is nothing to detect")
        classes, label = named_classes(enumerate(class_list)), {n: k for k, n in enumerate(class_list)}
        folders, paths = Folders(), [file.image for file in files.split]
        for i, file in enumerate(files.split, start=1):
            add_image(builder, i, file.image, file.source, file.annotation, label, one_based)
        check_duplicates(paths, folders, [file.source for file in files.split], name)
        for path in folders.unlisted_images(files.images, [*paths, *files.annotated]):
            builder.problems.add(UNLISTED, path)
        self.finish(
            name, classes, builder, keep_empty=keep_empty, class_names=class_names, class_map=class_map,
            ignore_classes=ignore_classes,
        )  # fmt: skip
        check_files([self.records.path(i) for i in range(len(self))], name, files.images, folders)


def add_image(
    builder: RecordsBuilder, image_id: int, path: str, source: str, annotation: VocAnnotation, label: dict[str, int],
    one_based: bool,
) -> None:  # fmt: skip
    """Adds one image; counts missing sizes, parts, and boxes that begin at 0 where pixels count from 1."""
    if annotation.size[0] < 0:
        builder.problems.add(NO_SIZE, source)
    shift = 1.0 if one_based else 0.0
    boxes, xywh = [], []
    for i, item in enumerate(annotation.objects, start=1):
        x1, y1, x2, y2 = item.box
        has_pixels = x2 > x1 and y2 > y1 and max(item.box) > 1.1
        # A box without area, or in fractions, as published must not be moved before it is seen.
        boxes.append([x1 - shift, y1 - shift, x2, y2] if has_pixels else item.box)
        xywh.append([x1 - shift, y1 - shift, x2 - x1 + shift, y2 - y1 + shift])
        if item.parts:
            builder.problems.add(PARTS, f"{source}, box {i} ({item.name})", count=item.parts)
        if one_based and min(x1, y1) == 0 and has_pixels:
            builder.problems.add(COUNTS_FROM_ZERO, f"{source}, box {i} {item.box}")
    labels = [label[item.name] for item in annotation.objects]
    difficult = [item.difficult for item in annotation.objects]
    builder.add(image_id, path, annotation.size, boxes, labels, difficult, source=source, xywh=xywh)


def check_duplicates(paths: list[str], folders: Folders, sources: list[str], name: str) -> None:
    """Raises ValueError if several annotations are of one image file: each would lack the objects of the others."""
    duplicates = folders.duplicates(paths).values()
    if duplicates:
        texts = [f"{paths[same[0]]} ({', '.join(sources[i] for i in same)})" for same in duplicates]
        count = plural(len(duplicates), "image file belongs", "image files belong")
        raise ValueError(
            f"{name}: {count} to several annotations, so the objects of one would be "
            f"background in the other: {shorten_list(texts)}. Put all objects into one annotation and list that one"
        )
