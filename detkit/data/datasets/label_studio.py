"""Exports of Label Studio as JSON or JSON-MIN (labelstud.io/guide/export)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco_file import number_of, short
from detkit.data.datasets.entries import (
    Box,
    around,
    around_ellipse,
    around_turned,
    describe_other,
    found_export,
    number_at,
    object_of,
    points_of,
    size_at,
)
from detkit.data.datasets.file_formats import read_json_file
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.image_finder import ImageFinder, check_records
from detkit.data.datasets.images import upright_size
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, SEVERAL_ANNOTATORS, SUSPECT, UNANNOTATED, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import shorten_list
from detkit.utils.types import Tree, Value

MARKS = re.compile(
    r'^\[\{.*("(annotations|completions)":\[.*"(data|result)":|"(rectangle|polygon|ellipse|brush)labels":\[)', re.S
)
KEYS_OF_RESULTS = ("annotations", "completions")
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""
GetSize = Callable[[], tuple[int, int]]
"""Reads (height, width) of the image, for a region that does not state them."""
LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels", "hypertextlabels")
WITHOUT_BOX = ("keypointlabels", "keypoint")
NO_REGIONS = (
    "choices", "taxonomy", "textarea", "rating", "number", "relation", "pairwise", "ranker", "datetime", "labels", "",
)  # fmt: skip
"""Types of results that say something of the image, or of another result."""


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
    regions = regions_of(results, f"{path}: {source}", lambda: upright_size(file), problems)
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


@dataclass(frozen=True)
class LabelledBox:
    """A region: class, box in pixels, (height, width) of the image that it states or was computed with."""

    label: str
    box: Box
    size: tuple[int, int]


def regions_of(results: list[Value], where: str, get_size: GetSize, problems: Problems) -> list[LabelledBox]:
    """The boxes of a task. A region and its label may be two results with one id."""
    entries = [object_of(value, f"{where}, result {i}") for i, value in enumerate(results, start=1)]
    check_one_image(entries, where)
    by_id = {str(e.get("id")): names for e in entries if e.get("type") == "labels" and (names := labels_of(e))}
    boxes: list[LabelledBox] = []
    for i, entry in enumerate(entries, start=1):
        spot = f"{where}, result {i}"
        boxes += [LabelledBox(*found) for found in boxes_of(entry, by_id, spot, get_size, problems)]
    return boxes


def check_one_image(entries: Sequence[Tree], where: str) -> None:
    """Raises ValueError for regions of several images, as nothing in an export says which file each of them is in."""
    regions = (e for e in entries if str(e.get("type")).removesuffix("labels") in OUTLINES)
    names = {str(region["to_name"]) for region in regions if region.get("to_name")}
    if len(names) > 1:
        raise ValueError(
            f"{where}: its regions are of several images ({shorten_list(sorted(names))}), of which one file is named: "
            "write a task for each image"
        )


def boxes_of(
    entry: Tree, by_id: dict[str, list[str]], where: str, get_size: GetSize, problems: Problems
) -> Iterator[tuple[str, Box, tuple[int, int]]]:  # fmt: skip
    """(class, box, size of the image) of a result, for each label it has; nothing for what is no region."""
    value = entry.get("value")
    kind = str(entry.get("type") or kind_of(value))
    if kind in WITHOUT_BOX:
        problems.add(NO_BOX, f"{where}: {kind}")
        return
    outline = OUTLINES.get(kind.removesuffix("labels"))
    if kind in NO_REGIONS:
        return
    if outline is None or not isinstance(value, dict):
        hint = ": export the project as COCO, which has the boxes of masks" if kind.startswith("brush") else ""
        raise ValueError(f"{where}: {short(kind)} is no region with a box{hint}")
    labels = labels_of(entry) or by_id.get(str(entry.get("id")), [])
    if not labels:
        raise ValueError(f"{where}: {kind} without a label")
    size = size_at(entry, "original_height", "original_width")
    size = size if size[0] > 0 else get_size()
    if size[0] <= 0:
        raise ValueError(f"{where}: in percent of an image whose size is not stated and which can't be read")
    if kind.removesuffix("labels") != "rectangle" or value.get("rotation"):
        problems.add(FROM_OUTLINE, f"{where}: {kind}")
    if number_of(entry.get("image_rotation", 0)):
        problems.add(SUSPECT, f"{where}: the image was turned by {entry['image_rotation']} degrees in Label Studio")
    for label in labels:
        yield label, outline(value, size, where), size


def kind_of(value: Value) -> str:
    """The kind of a region of JSON-MIN, by the list of its labels."""
    keys = value if isinstance(value, dict) else {}
    return next(
        (key for key in (*LABELS[:3], *WITHOUT_BOX, "brushlabels") if key in keys),
        "rectangle" if "width" in keys else "",
    )


def labels_of(entry: Tree) -> list[str]:
    """The labels of a result; all but empty texts."""
    value = entry.get("value")
    lists = [value[key] for key in LABELS if isinstance(value, dict) and isinstance(value.get(key), list)]
    return [label.strip() for each in lists for label in each if isinstance(label, str) and label.strip()]


def turn_of(value: Tree, where: str) -> float:
    """The clockwise degrees by which a region is turned; ValueError for what is not a number."""
    return number_at(value, "rotation", where) if value.get("rotation") else 0.0


def rectangle(value: Tree, size: tuple[int, int], where: str) -> Box:
    """Turned about its top left corner."""
    x, y, width, height = (number_at(value, key, where) / 100 for key in ("x", "y", "width", "height"))
    box = [x * size[1], y * size[0], (x + width) * size[1], (y + height) * size[0]]
    return around_turned(box, turn_of(value, where), (box[0], box[1]))


def polygon(value: Tree, size: tuple[int, int], where: str) -> Box:
    return around((x / 100 * size[1], y / 100 * size[0]) for x, y in points_of(value.get("points"), where))


def ellipse(value: Tree, size: tuple[int, int], where: str) -> Box:
    x, y, rx, ry = (number_at(value, key, where) / 100 for key in ("x", "y", "radiusX", "radiusY"))
    return around_ellipse(x * size[1], y * size[0], rx * size[1], ry * size[0], turn_of(value, where))


OUTLINES: dict[str, Callable[[Tree, tuple[int, int], str], Box]] = {
    "rectangle": rectangle, "polygon": polygon, "ellipse": ellipse,
}  # fmt: skip
