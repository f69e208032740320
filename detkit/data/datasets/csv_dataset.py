"""CSV tables with one box on each row."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_formats import BoxFormat, from_one_based
from detkit.data.datasets.csv_columns import columns_of
from detkit.data.datasets.csv_file import read_table
from detkit.data.datasets.csv_found import find_tables
from detkit.data.datasets.csv_images import CsvImage, Reader, read_classes
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import check_files
from detkit.data.datasets.image_finder import refuse_duplicates
from detkit.data.datasets.images import upright_size
from detkit.data.datasets.problems import DROPPED, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr

log = logging.getLogger("detkit")


@DATASETS.register()
class CsvDataset(DetectionDataset):
    """Boxes of a CSV table, one on each row; a row without a box is an image without objects.

    Known are the columns of the TensorFlow tutorials (filename, width, height, class, xmin, ymin, xmax, ymax), those of
    keras-retinanet (path, x1, y1, x2, y2, class, without a header), and others with common names.

    Args:
        annotations: CSV file, separated by commas, semicolons, tabs or bars.
        images: folder that the images' names are relative to; null is the file's own.
        columns: {role: column}; the roles are image, class, and of the box xmin, ymin, xmax, ymax, or x, y, box_width,
            box_height, or box (four numbers in one column); where there are such columns, width and height of the
            image, ignore and split.
        header: names of the columns of a file without a header.
        box_format: what the numbers of a box are; null goes by the names of the columns.
        fractions: whether boxes are fractions of the image's width and height; null takes them so if the numbers of
            all boxes are between 0 and 1 and not whole.
        one_based: pixels are counted from 1 and the last one belongs to the box, as in Pascal VOC; x1 and y1 then lose
            one. null means true for the columns of the TensorFlow tutorials, which copy the numbers of VOC files; a
            set found by looking has false where XML files of LabelImg are there, too.
        classes: CSV file with the class names and their order, one on each row, as keras-retinanet has it (name, id).
        single_class: name of the only class, for a table without a column of classes.
        split: value of the column `split` whose rows are read; null reads all.
        encoding: of the file, as cp1252 or gb18030; null reads UTF-8, UTF-16 and UTF-32.
        class_names: the classes and their order; null takes those of `classes`, or all names in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        return find_tables(place)

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr | None = None,
        columns: dict[str, str] | None = None,
        header: list[str] | None = None,
        box_format: BoxFormat | None = None,
        fractions: bool | None = None,
        one_based: bool | None = None,
        classes: PathStr | None = None,
        single_class: str | None = None,
        split: str | None = None,
        encoding: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        table = read_table(annotations, encoding)
        layout = columns_of(table, columns, header, box_format, needs_class=single_class is None)
        if single_class is not None and "class" in layout.of:
            raise ValueError(f"{annotations}: single_class: the table has a column of classes; leave single_class out")
        folder = images or os.path.dirname(annotations) or "."
        reader = Reader(table, layout, read_classes(classes, encoding), single_class, folder)
        entries = reader.read(split)
        check_files([entry.path for entry in entries], annotations, folder)
        problems = reader.problems
        as_fractions = all_fractions(entries) if fractions is None else fractions
        if as_fractions and fractions is None:
            log.info("%s: all boxes are fractions of their image", annotations)
        from_one = layout.from_voc and not as_fractions if one_based is None else one_based
        records = [to_record(entry, layout.box_format, as_fractions, from_one, problems) for entry in entries]
        refuse_duplicates(records, annotations, "Give each image one name")
        self.finish_images(
            annotations if split is None else f"{annotations} ({split})",
            records,
            folder=folder,
            classes=reader.class_list(),
            problems=problems,
            bad_boxes=bad_boxes,
            keep_empty=keep_empty,
            class_names=class_names,
            class_map=class_map,
            ignore_classes=ignore_classes,
        )


def all_fractions(images: Sequence[CsvImage]) -> bool:
    """Whether the numbers of all boxes lie between 0 and 1, give or take a tenth, and some are not whole."""
    numbers = [value for image in images for box in image.boxes for value in box]
    return bool(numbers) and all(-0.1 <= v <= 1.1 for v in numbers) and any(v % 1 for v in numbers)


def to_record(
    image: CsvImage, box_format: BoxFormat, fractions: bool, one_based: bool, problems: Problems
) -> ImageRecord:
    """The record of one image, its boxes as xyxy pixels and as x, y, width, height."""
    size = image.size
    if fractions and image.boxes:
        size = upright_size(image.path) if size[0] < 0 else size
        if size[0] < 0:
            problems.add(DROPPED, f"{image.path} can't be read, so its size is unknown", count=len(image.boxes))
            return ImageRecord(path=image.path)
    scale = (size[1], size[0]) * 2 if fractions else (1.0,) * 4
    boxes = [[value * side for value, side in zip(box, scale, strict=True)] for box in image.boxes]
    xywh: list[list[float]] | None = None
    if box_format != "xyxy":
        centred = box_format == "cxcywh"
        xywh = [[x - w / 2, y - h / 2, w, h] if centred else [x, y, w, h] for x, y, w, h in boxes]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in xywh]
    elif one_based:
        moved = [from_one_based(box, f"{image.path}, box {i}", problems) for i, box in enumerate(boxes, start=1)]
        boxes, xywh = [corners for corners, _ in moved], [sides for _, sides in moved]
    return ImageRecord(
        path=image.path, boxes=boxes, names=image.names, size=size, is_ignore=image.flags, xywh=xywh
    )  # fmt: skip
