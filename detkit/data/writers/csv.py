"""CSV as in the TensorFlow tutorials: SPLIT_labels.csv with a row for each box, a folder of images, classes.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.image_names import original_names, top_folder
from detkit.data.datasets.problems import Problems
from detkit.data.writers.boxes import (
    WrittenImage,
    count_lost_fields,
    count_thin,
    images_of,
    number_text,
    usable_boxes,
)
from detkit.data.writers.names import class_names, image_names
from detkit.data.writers.target import Images, Written, all_or_nothing, how_placed, place_image, with_progress
from detkit.utils.types import Tree

HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
IGNORE = "difficult"
"""One more column, which is written if there are ignore regions."""
SCORE = "score"
"""One more column, which is written for detections."""


def write_csv(splits: Mapping[str, DetectionDataset], folder: Path, *, images: Images = "copy") -> Written:
    """Writes data sets as CSV, whose pixels count from 1; an image without objects is a row without class and box.

    Args:
        splits: data sets by the names of their splits.
        folder: a new or empty one.
        images: how images come into the folder; reference leaves them where they are.
    """
    problems, nodes = Problems(), {}
    texts = class_names(splits, problems)
    with all_or_nothing(folder) as new:
        (new / "classes.csv").write_text(
            table_text((n, str(k)) for k, n in enumerate(texts.values())), encoding="utf-8"
        )
        for split, dataset in splits.items():
            how = how_placed(images, dataset)
            names = original_names(dataset) if how == "reference" else image_names(dataset, problems)
            place, file = ("images", "labels.csv") if split == "all" else (split, f"{split}_labels.csv")
            table = split_table(dataset, names, texts, problems)
            (new / file).write_text(table, encoding="utf-8")
            for image, name in with_progress(zip(images_of(dataset), names, strict=True), len(names), split):
                place_image(image, new / place / name, how)
            where = top_folder(dataset) if how == "reference" else str(folder / place)
            nodes[split] = node_of(folder / file, where, folder / "classes.csv")
    return Written(nodes, problems)


def node_of(table: Path, images: str, classes: Path) -> Tree:
    return {"type": "CsvDataset", "annotations": str(table), "images": images, "classes": str(classes)}


def split_table(dataset: DetectionDataset, names: Sequence[str], texts: Mapping[str, str], problems: Problems) -> str:
    """The table of a split. names: of the images; texts: of the classes in the file."""
    with_ignore = bool(dataset.records.truth.is_ignore.any())
    classes = [texts[name] for name in dataset.classes.names]
    rows: list[list[str]] = [[*HEADER, *[IGNORE] * with_ignore, *[SCORE] * (dataset.scores is not None)]]
    for number, (image, name) in enumerate(zip(images_of(dataset), names, strict=True), start=1):
        count_lost_fields(image, number, problems)
        count_thin(image, problems)
        rows += rows_of(image, name, classes, problems, with_ignore)
    return table_text(rows)


def rows_of(
    image: WrittenImage, name: str, classes: Sequence[str], problems: Problems, with_ignore: bool
) -> Iterator[list[str]]:
    """The rows of an image, one for each box. classes: names by label."""
    height, width = image.size
    start = [name, *([str(width), str(height)] if height > 0 else ["", ""])]
    boxes = list(usable_boxes(image, problems))
    for _, box in boxes:
        more = [str(int(box.is_ignore))] * with_ignore + ([] if box.score is None else [number_text(box.score)])
        yield [*start, classes[box.label], *map(number_text, box.pixels), *more]
    if not boxes:
        yield [*start, *[""] * (5 + with_ignore + (image.dataset.scores is not None))]


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
