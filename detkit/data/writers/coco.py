"""COCO JSON: a folder of images and a file annotations/instances_SPLIT.json for each split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.image_names import original_names, top_folder
from detkit.data.datasets.problems import Problems
from detkit.data.writers.boxes import WrittenBox, WrittenImage, images_of, usable_boxes
from detkit.data.writers.kinds import NEW_OBJECT_ID
from detkit.data.writers.names import image_names
from detkit.data.writers.target import Images, Written, all_or_nothing, how_placed, place_image, with_progress
from detkit.utils.types import Tree


def write_coco(splits: Mapping[str, DetectionDataset], folder: Path, *, images: Images = "copy") -> Written:
    """Writes data sets as COCO JSON; ids of images, categories and annotations stay, ignore regions are `iscrowd`.

    Args:
        splits: data sets by the names of their splits.
        folder: a new or empty one.
        images: how images come into the folder; reference leaves them where they are.
    """
    problems = Problems()
    nodes: dict[str, Tree] = {}
    with all_or_nothing(folder) as new:
        (new / "annotations").mkdir()
        for split, dataset in splits.items():
            how = how_placed(images, dataset)
            names = original_names(dataset) if how == "reference" else image_names(dataset, problems)
            file, place = f"annotations/instances_{split}.json", "images" if split == "all" else split
            content = coco_content(dataset, names, problems)
            (new / file).write_text(json.dumps(content), encoding="utf-8")
            for image, name in with_progress(zip(images_of(dataset), names, strict=True), len(names), split):
                place_image(image, new / place / name, how)
            where = top_folder(dataset) if how == "reference" else str(folder / place)
            nodes[split] = {"type": "CocoDataset", "annotations": str(folder / file), "images": where}
            if list(dataset.classes.ids) != sorted(dataset.classes.ids):  # readers take the classes by their ids
                nodes[split]["class_names"] = list(dataset.classes.names)
    return Written(nodes, problems)


def coco_content(dataset: DetectionDataset, names: list[str], problems: Problems) -> Tree:
    """The content of an instances file. names: of the images."""
    categories = [{"id": i, "name": n} for i, n in zip(dataset.classes.ids, dataset.classes.names, strict=True)]
    content: Tree = {"images": [], "annotations": [], "categories": categories}
    ids = ObjectIds(dataset, problems)
    for image, name in zip(images_of(dataset), names, strict=True):
        content["images"].append(image_entry(image, name))
        for k, box in usable_boxes(image, problems):
            content["annotations"].append({"id": ids.choose(box, image.where(k)), **box_entry(image, box)})
    return content


class ObjectIds:
    """An id for each annotation: its own, unless another one has it; free numbers, from 1, for those without."""

    def __init__(self, dataset: DetectionDataset, problems: Problems) -> None:
        self.own, self.used, self.problems = set(dataset.records.truth.ids.tolist()), set[int](), problems
        self.free = (number for number in count(1) if number not in self.own)

    def choose(self, box: WrittenBox, where: str) -> int:
        """The id of a box. where: for messages."""
        if box.object_id is None:
            return next(self.free)
        if box.object_id in self.used:
            number = next(self.free)
            self.problems.add(NEW_OBJECT_ID, f"{where}: {number}, not {box.object_id}")
            return number
        self.used.add(box.object_id)
        return box.object_id


def image_entry(image: WrittenImage, name: str) -> Tree:
    height, width = image.size
    size = {"width": width, "height": height} if height > 0 else {}
    return {"id": image.image_id, "file_name": name, **size}


def box_entry(image: WrittenImage, box: WrittenBox) -> Tree:
    return {
        "image_id": image.image_id,
        "category_id": image.dataset.classes.ids[box.label],
        "bbox": list(box.xywh),
        "area": box.area,
        "iscrowd": int(box.is_ignore),
    }
