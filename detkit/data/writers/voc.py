"""Pascal VOC: JPEGImages, Annotations and the lists of ImageSets/Main, without subfolders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.box_checks import CORNERS
from detkit.data.datasets.problems import Problems
from detkit.data.writers.boxes import (
    WrittenBox,
    WrittenImage,
    count_lost_fields,
    count_thin,
    images_of,
    number_text,
    usable_boxes,
)
from detkit.data.writers.names import class_names, flat_names, image_names, make_unique, stem_key
from detkit.data.writers.target import Images, Written, all_or_nothing, place_image, refuse_reference, with_progress
from detkit.utils.types import Tree


def write_voc(splits: Mapping[str, DetectionDataset], folder: Path, *, images: Images = "copy") -> Written:
    """Writes data sets as Pascal VOC, whose pixels count from 1; ignore regions are `difficult`.

    Args:
        splits: data sets by the names of their splits.
        folder: a new or empty one.
        images: how images come into the folder.
    """
    refuse_reference(images, "Pascal VOC")
    problems, nodes = Problems(), {}
    names, classes = unique_names(splits, problems), class_names(splits, problems)
    with all_or_nothing(folder) as new:
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (new / part).mkdir(parents=True)
        for split, dataset in splits.items():
            texts = [classes[name] for name in dataset.classes.names]
            items = zip(images_of(dataset), names[split], strict=True)
            for number, (image, name) in enumerate(with_progress(items, len(dataset), split), start=1):
                count_lost_fields(image, number, problems)
                count_thin(image, problems)
                place_image(image, new / "JPEGImages" / name, images)
                xml = annotation_xml(image, name, texts, problems)
                (new / "Annotations" / f"{stem_of(name)}.xml").write_text(xml, encoding="utf-8")
            lines = "".join(f"{stem_of(name)}\n" for name in names[split])
            (new / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
            nodes[split] = {"type": "VocDataset", "root": str(folder), "split": split}
    return Written(with_classes(nodes, splits, classes), problems)


def stem_of(name: str) -> str:
    return name.rpartition(".")[0]


def unique_names(splits: Mapping[str, DetectionDataset], problems: Problems) -> dict[str, list[str]]:
    """The names of the images of each split, without folders, no two of them with the same stem."""
    nested = {split: image_names(dataset, problems) for split, dataset in splits.items()}
    names = [(split, name) for split, all_names in nested.items() for name in all_names]
    flat = flat_names([name for _, name in names])
    unique = iter(make_unique([name for _, name in names], flat, stem_key, problems))
    return {split: [next(unique) for _ in all_names] for split, all_names in nested.items()}


def with_classes(
    nodes: dict[str, Tree], splits: Mapping[str, DetectionDataset], classes: Mapping[str, str]
) -> dict[str, Tree]:
    """The nodes, with `class_names` where the order of the classes is not the alphabetical one of all objects."""
    used: set[str] = set()
    names_of = {split: [classes[n] for n in d.classes.names] for split, d in splits.items()}
    for split, dataset in splits.items():
        used |= {names_of[split][k] for k in set(dataset.records.truth.labels.tolist()) if k >= 0}
    for split, names in names_of.items():
        if names != sorted(used):
            nodes[split]["class_names"] = names
    return nodes


def annotation_xml(image: WrittenImage, name: str, classes: list[str], problems: Problems) -> str:
    """The annotation file of an image. classes: names by label."""
    height, width = (max(side, 0) for side in image.size)
    objects = "".join(object_xml(box, classes[box.label]) for _, box in usable_boxes(image, problems))
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def object_xml(box: WrittenBox, name: str) -> str:
    """An <object>. name: of its class."""
    tags = "".join(f"<{k}>{number_text(value)}</{k}>" for k, value in zip(CORNERS, box.pixels, strict=True))
    score = "" if box.score is None else f"<score>{number_text(box.score)}</score>"
    return (
        f"  <object>\n    <name>{escape(name)}</name>\n    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n"
        f"    <difficult>{int(box.is_ignore)}</difficult>\n    <bndbox>{tags}</bndbox>{score}\n  </object>\n"
    )
