"""COCO JSON (cocodataset.org/#format-data)."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from detkit.data.datasets.base import DetectionDataset, named_classes
from detkit.data.datasets.box_checks import note_corners
from detkit.data.datasets.coco_file import (
    Entry,
    area_of,
    box_of,
    categories_of,
    count_bad_ids,
    count_unread,
    id_of,
    integer_ids,
    is_crowd,
    not_read,
    number_of,
    object_id_of,
    read_json,
    size_of,
)
from detkit.data.datasets.coco_find import find_coco
from detkit.data.datasets.entries import turned_box
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import Folders
from detkit.data.datasets.problems import IN_FOLDER, MERGED, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Scalar


@DATASETS.register()
class CocoDataset(DetectionDataset):
    """Boxes of a COCO instances file; `iscrowd` boxes are ignore regions.

    Args:
        annotations: JSON file.
        images: folder that `file_name` is relative to.
        class_names: the classes and their order; null takes the file's, by category id.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
            Evaluation uses the file's boxes as they are.
        keep_empty: whether to keep images without objects.
        same_file: what to do with a file that is listed under several image ids; null refuses it, merge puts all boxes
            under the first id.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        return find_coco(place)

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
        same_file: Literal["merge"] | None = None,
    ) -> None:
        content, problems = read_json(annotations), Problems()
        count_bad_ids(content, problems)
        used = Counter(id_of(item, "category_id") for item in content["annotations"])
        categories = categories_of(content, used, annotations, problems)
        numbers = integer_ids(list(categories), "category", problems)
        by_image = group_by_image(content, categories, annotations)
        folders = Folders()
        paths = image_paths(content["images"], images, folders, problems)
        merged = merge_images(content["images"], paths, by_image, folders, annotations, same_file, problems)
        image_ids = integer_ids([id_of(image) for image in content["images"]], "image", problems)
        records = (
            to_record(image, image_ids[text], path, by_image.get(text, []), categories, annotations, problems)
            for image, path in zip(content["images"], paths, strict=True)
            if (text := id_of(image)) not in merged
        )
        self.finish_images(
            annotations, records, folder=images, classes=named_classes((numbers[i], n) for i, n in categories.items()),
            annotated=paths, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty, class_names=class_names,
            class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip
        self.roots = (images, os.path.dirname(annotations))
        self.files = annotations, images

    def unread(self, indices: Sequence[int]) -> Problems:
        annotations, images = self.files
        content, folders = read_json(annotations), Folders()
        chosen = {folders.real(self.records.path(i)) for i in indices}
        paths = image_paths(content["images"], images, folders, Problems())
        entries = [e for e, path in zip(content["images"], paths, strict=True) if folders.real(path) in chosen]
        return count_unread({**content, "images": entries})

    def image_metadata(self) -> list[Mapping[str, Scalar]]:
        """The other keys of each entry of `images` whose values are numbers, texts or truth values."""
        entries = read_json(self.files[0])["images"]
        ids = integer_ids([id_of(image) for image in entries], "image", Problems())
        columns = {ids[id_of(image)]: extra_columns(image) for image in reversed(entries)}
        return [columns.get(image_id, {}) for image_id in self.records.image_ids.tolist()]


def extra_columns(image: Entry) -> dict[str, Scalar]:
    """What an entry of `images` says that detkit does not read, lists and objects left out."""
    return {k: v for k, v in image.items() if not_read("images", k, v) and isinstance(v, (str, int, float, bool))}


def image_paths(entries: list[Entry], images: str, folders: Folders, problems: Problems) -> list[str]:
    """The path of every image: `file_name` below `images`, or the file of that name in `images` itself.

    Exports lead to the folders of the machine that wrote them. The last part of a name counts if no other image has it.
    """
    names = [image["file_name"] for image in entries]
    paths = [folders.image_path(images, name) for name in names]
    last = [name.replace("\\", "/").rpartition("/")[2] for name in names]
    counts = Counter(last)
    for i, name in enumerate(last):
        beside = os.path.join(images, name)
        if paths[i] not in folders and counts[name] == 1 and name not in ("", "..") and beside in folders:
            paths[i] = beside
            problems.add(IN_FOLDER, f"{names[i]}: {beside}")
    return paths


def to_record(
    image: Entry, image_id: int, path: str, items: list[Entry], categories: Mapping[str, str], name: str,
    problems: Problems,
) -> ImageRecord:  # fmt: skip
    """The record of one image with its annotations. categories: id -> class name."""
    source, size = f"image {image['id']} ({image['file_name']})", size_of(image, name)
    named = [(item, f"{source}, box {i}") for i, item in enumerate(items, start=1)]
    boxes = [upright_box(item, where, problems) for item, where in named]
    note_corners(boxes, size, source, problems)
    return ImageRecord(
        path=path,
        boxes=[[x, y, x + w, y + h] for x, y, w, h in boxes],
        names=[categories[id_of(item, "category_id")] for item in items],
        size=size,
        is_ignore=[is_crowd(item, f"{name}: {where}") for item, where in named],
        image_id=image_id,
        area=[area_of(item, box, where, problems) for (item, where), box in zip(named, boxes, strict=True)],
        xywh=boxes,
        source=source,
        ids=[object_id_of(item) for item in items],
    )


def upright_box(item: Entry, where: str, problems: Problems) -> list[float]:
    """x, y, width and height of an annotation; around its box where CVAT says that this is turned, in degrees."""
    x, y, width, height = box_of(item, where, problems)
    attributes = item.get("attributes")
    turn = number_of(attributes.get("rotation")) if isinstance(attributes, dict) else None
    # A turned box with an outline is the box of that outline.
    if not turn or item.get("segmentation") or not all(map(math.isfinite, (turn, x, y, width, height))):
        return [x, y, width, height]
    x1, y1, x2, y2 = turned_box([x, y, x + width, y + height], turn, where, problems)
    return [x1, y1, x2 - x1, y2 - y1]


def group_by_image(content: Entry, categories: Mapping[str, str], name: str) -> dict[str, list[Entry]]:
    """Annotations by image id; ValueError that names images and categories that are not declared."""
    known = Counter(map(id_of, content["images"]))
    twice = {i for i, count in known.items() if count > 1}
    if twice:
        files = {i: [im["file_name"] for im in content["images"] if id_of(im) == i] for i in sorted(twice)[:20]}
        texts = [f"image id {i} is used {known[i]} times: {' and '.join(names[:3])}" for i, names in files.items()]
        raise ValueError(f"{name}: {shorten_list(texts)}. Give each image a unique id")
    grouped: dict[str, list[Entry]] = {}
    undeclared: Counter[str] = Counter()
    for item in content["annotations"]:
        grouped.setdefault(id_of(item, "image_id"), []).append(item)
        if (category := id_of(item, "category_id")) not in categories:
            undeclared[category] += 1
    unlisted = sorted(set(grouped) - set(known))
    if unlisted:
        count = plural(sum(len(grouped[i]) for i in unlisted), "annotation")
        raise ValueError(
            f"{name}: {count} of {plural(len(unlisted), 'image id')} not declared in `images`: "
            f"{shorten_list(unlisted)}. List these images, or remove their annotations"
        )
    if undeclared:
        counts = [f"{category} ({plural(count, 'box', 'boxes')})" for category, count in sorted(undeclared.items())]
        raise ValueError(
            f"{name}: {plural(len(undeclared), 'category id')} not declared in `categories`: {shorten_list(counts)}"
        )
    return grouped


def merge_images(
    images: list[Entry], paths: list[str], by_image: dict[str, list[Entry]], folders: Folders, name: str,
    policy: Literal["merge"] | None, problems: Problems,
) -> set[str]:  # fmt: skip
    """Moves the annotations of images that are one file to the first of them; returns the ids of the others.

    Without the policy ValueError: each entry would train on the other's objects as background.
    """
    merged: set[str] = set()
    duplicates = folders.duplicates(paths).values()
    if duplicates and policy is None:
        ids = [shorten_list([images[i]["id"] for i in same], 5) for same in duplicates]
        texts = [f"{images[same[0]]['file_name']} (ids {i})" for same, i in zip(duplicates, ids, strict=True)]
        count = plural(len(duplicates), "image file is", "image files are")
        raise ValueError(
            f"{name}: {count} listed under several ids, so the objects of one entry would be "
            f"background in the other: {shorten_list(texts)}. Set same_file: merge to put all boxes under the first "
            "id, or remove the extra entries"
        )
    for first, *others in duplicates:
        sizes = {size_of(images[i], name) for i in (first, *others)} - {(-1, -1)}
        if len(sizes) > 1:
            raise ValueError(f"{name}: {images[first]['file_name']} is listed with different sizes: {sorted(sizes)}")
        for i in others:
            merged.add(id_of(images[i]))
            by_image.setdefault(id_of(images[first]), []).extend(by_image.pop(id_of(images[i]), []))
            problems.add(MERGED, f"{images[i]['file_name']}: id {images[i]['id']} into {images[first]['id']}")
    return merged
