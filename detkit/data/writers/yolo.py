"""YOLO: data.yaml, images/SPLIT and labels/SPLIT with a text file per image."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.found import canonical_split
from detkit.data.datasets.problems import Problems
from detkit.data.writers.boxes import Ignored, WrittenImage, count_lost_fields, images_of, object_boxes
from detkit.data.writers.names import class_names, image_names, stem_key
from detkit.data.writers.target import Images, Written, all_or_nothing, place_image, refuse_reference, with_progress
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree

DECIMALS = 12
"""Of a fraction: far below a thousandth of a pixel, so that a box is read back as the same 32-bit number."""


def write_yolo(
    splits: Mapping[str, DetectionDataset], folder: Path, *, images: Images = "copy", ignored: Ignored = "drop"
) -> Written:
    """Writes data sets as YOLO: class, centre and size of a box as fractions of the image.

    Args:
        splits: data sets by the names of their splits; their classes are merged by name.
        folder: a new or empty one.
        images: how images come into the folder.
        ignored: what becomes of ignore regions, which the format lacks.

    Raises ValueError for an image with boxes whose size is not the stated one, or can't be read.
    """
    import yaml

    refuse_reference(images, "YOLO")
    problems, keys = Problems(), split_keys(splits)
    names = class_names(splits, problems)
    number = {name: k for k, name in enumerate(names)}
    places: Tree = {}
    with all_or_nothing(folder) as new:
        for split, dataset in splits.items():
            files = image_names(dataset, problems, stem_key)
            items = zip(images_of(dataset), files, strict=True)
            for k, (image, file) in enumerate(with_progress(items, len(dataset), split), start=1):
                count_lost_fields(image, k, problems)
                place_image(image, new / "images" / split / file, images)
                label_file = (new / "labels" / split / file).with_suffix(".txt")
                label_file.parent.mkdir(parents=True, exist_ok=True)
                label_file.write_text(label_text(image, number, problems, ignored), encoding="utf-8")
            places[keys[split]] = f"images/{split}"
            if files != sorted(files, key=position):
                places[keys[split]] = f"{split}.txt"
                lines = "".join(f"./images/{split}/{file}\n" for file in files)
                (new / f"{split}.txt").write_text(lines, encoding="utf-8")
        content = {**places, "names": dict(enumerate(names.values()))}
        (new / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    data = str(folder / "data.yaml")
    nodes: dict[str, Tree] = {split: {"type": "YoloDataset", "data": data, "split": key} for split, key in keys.items()}
    return Written(nodes, problems)


def split_keys(splits: Iterable[str]) -> dict[str, str]:
    """The key of each split in data.yaml; a set without splits is `train`. ValueError for one that has no key."""
    keys = {split: "train" if split == "all" else canonical_split(split) or "" for split in splits}
    wrong = [split for split, key in keys.items() if not key]
    if wrong or len(set(keys.values())) < len(keys):
        one_each = {key: split for split, key in reversed(keys.items()) if key}
        chosen = f"choose one of each, as in --splits {shlex.join(reversed(one_each.values()))}"
        way_out = (
            chosen if one_each else "name the files or folders of the input by these words, or write another format"
        )
        raise ValueError(
            f"--splits: YOLO has one train, val and test each, but the input has {shorten_list(list(keys))}: {way_out}"
        )
    return keys


def position(name: str) -> list[tuple[bool, str]]:
    """A key that sorts names as readers list a folder: its files first, then those of its subfolders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


def label_text(image: WrittenImage, number: Mapping[str, int], problems: Problems, ignored: Ignored) -> str:
    """The lines of an image's label file; a detection's ends with its score. number: of each class name."""
    boxes = list(object_boxes(image, problems, ignored))
    if not boxes:
        return ""
    height, width = real_size(image)
    lines = []
    for _, box in boxes:
        x, y, w, h = box.xywh
        values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        confidence = () if box.score is None else (box.score,)
        numbers = map(fraction_text, (*values, *confidence))
        lines.append(" ".join([str(number[image.dataset.classes.names[box.label]]), *numbers]))
    return "\n".join(lines) + "\n"


def real_size(image: WrittenImage) -> tuple[int, int]:
    """(height, width) of an image, by which its boxes are divided."""
    size = image.dataset.image_size(image.index)
    if image.size[0] > 0 and size != image.size:
        raise ValueError(
            f"{printable(image.path)} has {size[1]}x{size[0]} pixels, but its annotation says {image.size[1]}x"
            f"{image.size[0]}, so fractions of it would be wrong: correct one of them, or remove the image"
        )
    return size


def fraction_text(value: float) -> str:
    """A fraction without exponent and without zeros at its end."""
    return f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
