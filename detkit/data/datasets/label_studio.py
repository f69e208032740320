"""Exports of Label Studio as JSON or JSON-MIN (labelstud.io/guide/export)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import short
from detkit.data.datasets.entries import describe_other, found_export, object_of, read_json_file
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.images import size_if_readable
from detkit.data.datasets.label_studio_regions import regions_of
from detkit.data.datasets.problems import SEVERAL_ANNOTATORS, UNANNOTATED, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.types import Tree, Value

MARKS = re.compile(
    r'^\[\{.*("(annotations|completions)":\[.*"(data|result)":|"(rectangle|polygon|ellipse|brush)labels":\[)', re.S
)
KEYS_OF_RESULTS = ("annotations", "completions")
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""


@DATASETS.register()
class LabelStudioDataset(DetectionDataset):
    """Boxes of an export of Label Studio as JSON or JSON-MIN.

    Of several annotations of an image, the one that is marked as ground truth is used, else the newest. Cancelled ones
    and predictions are not read; an image without an annotation is left out, which one with an empty annotation is not.
    A polygon, ellipse or turned rectangle gives the box around it; key points give none. An uploaded image is found
    under its own name and under the one that Label Studio gave it (1f2e3d4c-name.jpg).

    Args:
        annotations: JSON file.
        images: folder of the images, with subfolders.
        image_key: key of `data` that names the image; null takes `image`, or the only one that names an image file.
        class_names: the classes and their order; null takes the labels in use, in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        return found_export("LabelStudioDataset", "Label Studio", place, MARKS, "a list of tasks with results")

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        image_key: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        problems = Problems()
        finder = ImageFinder(images, problems)
        records = list(read_tasks(annotations, image_key, finder, problems))
        check_records(records, annotations, "none of its tasks has an annotation")
        self.finish_images(
            annotations, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def read_tasks(path: str, image_key: str | None, finder: ImageFinder, problems: Problems) -> Iterator[ImageRecord]:
    """The record of each task that is annotated."""
    content = read_json_file(path)
    tasks = content if isinstance(content, list) else [content]
    for i, value in enumerate(tasks, start=1):
        task = object_of(value, f"{path}: task {i}")
        source = f"task {task.get('id', i)}"
        data = task if "data" not in task else object_of(task["data"], f"{path}: {source}: data")
        if data is task and not any(isinstance(v, str) and is_image_name(v) for v in task.values()):
            raise ValueError(f"{path}: {source}: not of Label Studio: it is {describe_other(content)}")
        results = results_of(task, data is task, source, path, problems)
        if results is None:
            problems.add(UNANNOTATED, f"{path}: {source}")
            continue
        yield read_task(results, image_name(data, image_key, f"{path}: {source}"), source, path, finder, problems)


def read_task(
    results: list[Value], name: str, source: str, path: str, finder: ImageFinder, problems: Problems
) -> ImageRecord:  # fmt: skip
    """The record of a task; its regions are in percent, of the size that they state or the image has."""
    file = find_image(name, finder, f"{path}: {source}")
    regions = regions_of(results, f"{path}: {source}", lambda: size_if_readable(file), problems)
    size = next((region.size for region in regions if region.size[0] > 0), (-1, -1))
    return ImageRecord(
        path=file,
        boxes=[r.box for r in regions],
        names=[r.label for r in regions],
        size=size,
        source=f"{source} ({name})",
    )


def results_of(task: Tree, minimal: bool, source: str, path: str, problems: Problems) -> list[Value] | None:
    """The results of the annotation that counts; None for a task that nobody has annotated."""
    if minimal:
        lists = [v for v in task.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        regions = [{"value": region, **region} for each in lists for region in each]
        return regions if regions or "annotator" in task or "annotation_id" in task else None
    values: list[Value] = next((task[key] for key in KEYS_OF_RESULTS if isinstance(task.get(key), list)), [])
    done = [object_of(v, f"{path}: {source}: annotation") for v in values]
    done = [v for v in done if not v.get("was_cancelled") and not v.get("skipped")]
    if not done:
        return None
    truth = [v for v in done if v.get("ground_truth")] or done
    if len(truth) > 1:
        problems.add(SEVERAL_ANNOTATORS, f"{path}: {source}: {len(truth)} annotations")
    newest = max(truth, key=lambda v: str(v.get("updated_at") or v.get("created_at") or ""))
    results = newest.get("result") or []
    if not isinstance(results, list):
        raise ValueError(f"{path}: {source}: result is {short(results)}, not a list")
    return results


def image_name(data: Tree, key: str | None, where: str) -> str:
    """The file that a task's data name; ValueError if none or several may be meant."""
    if key is None and not isinstance(data.get("image"), str):
        named = [k for k, v in data.items() if isinstance(v, str) and is_image_name(v)]
        if len(named) != 1:
            raise ValueError(f"{where}: no image in its data ({short(data)}): name the key with image_key")
        key = named[0]
    value = data.get(key or "image")
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: {key or 'image'} is {short(value)}, not the name of an image")
    return file_of_address(value)


def is_image_name(value: str) -> bool:
    return file_of_address(value).lower().endswith(image_suffixes())


def file_of_address(value: str) -> str:
    """The path in an address of Label Studio: of /data/local-files/?d=a/b.jpg it is a/b.jpg."""
    try:
        address = urlsplit(value)
    except ValueError:  # as of "http://[", which is no address
        return value
    if "?d=" in value or "&d=" in value:
        return parse_qs(address.query).get("d", [value])[0]
    if re.match(r"[A-Za-z][\w+.-]*://", value):
        return unquote(address.path)
    return unquote(value) if value.startswith("/data/") else value


def find_image(name: str, finder: ImageFinder, where: str) -> str:
    """The image of a task; an upload also without the eight digits before its name."""
    path = finder.find(name, where)
    plain = UPLOAD.sub("", Path(name.replace("\\", "/")).name)
    if not os.path.isfile(path) and plain in finder.by_name:
        return finder.find(plain, where)
    return path
