"""The regions of a task of Label Studio, which are in percent of the image, as boxes in pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from detkit.data.datasets.coco_file import number_of, short
from detkit.data.datasets.entries import (
    Box,
    around,
    around_ellipse,
    around_turned,
    number_at,
    object_of,
    points_of,
    size_at,
)
from detkit.data.datasets.problems import FROM_OUTLINE, NO_BOX, SUSPECT, Problems
from detkit.utils.types import Tree, Value

GetSize = Callable[[], tuple[int, int]]
"""Reads (height, width) of the image, for a region that does not state them."""
LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels", "hypertextlabels")
WITHOUT_BOX = ("keypointlabels", "keypoint")
NO_REGIONS = (
    "choices", "taxonomy", "textarea", "rating", "number", "relation", "pairwise", "ranker", "datetime", "labels", "",
)  # fmt: skip
"""Types of results that say something of the image, or of another result."""


@dataclass(frozen=True)
class LabelledBox:
    """A region: class, box in pixels, (height, width) of the image that it states or was computed with."""

    label: str
    box: Box
    size: tuple[int, int]


def regions_of(results: list[Value], where: str, get_size: GetSize, problems: Problems) -> list[LabelledBox]:
    """The boxes of a task. A region and its label may be two results with one id."""
    entries = [object_of(value, f"{where}, result {i}") for i, value in enumerate(results, start=1)]
    by_id = {str(e.get("id")): names for e in entries if e.get("type") == "labels" and (names := labels_of(e))}
    boxes: list[LabelledBox] = []
    for i, entry in enumerate(entries, start=1):
        spot = f"{where}, result {i}"
        boxes += [LabelledBox(*found) for found in boxes_of(entry, by_id, spot, get_size, problems)]
    return boxes


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


def rectangle(value: Tree, size: tuple[int, int], where: str) -> Box:
    """Turned about its top left corner."""
    x, y, width, height = (number_at(value, key, where) / 100 for key in ("x", "y", "width", "height"))
    box = [x * size[1], y * size[0], (x + width) * size[1], (y + height) * size[0]]
    turn = number_of(value.get("rotation") or 0)
    if turn is None:
        raise ValueError(f"{where}: rotation is {short(value['rotation'])}, not a number")
    return around_turned(box, turn, (box[0], box[1]))


def polygon(value: Tree, size: tuple[int, int], where: str) -> Box:
    return around((x / 100 * size[1], y / 100 * size[0]) for x, y in points_of(value.get("points"), where))


def ellipse(value: Tree, size: tuple[int, int], where: str) -> Box:
    x, y, rx, ry = (number_at(value, key, where) / 100 for key in ("x", "y", "radiusX", "radiusY"))
    turn = number_of(value.get("rotation") or 0) or 0.0
    return around_ellipse(x * size[1], y * size[0], rx * size[1], ry * size[0], turn)


OUTLINES: dict[str, Callable[[Tree, tuple[int, int], str], Box]] = {
    "rectangle": rectangle, "polygon": polygon, "ellipse": ellipse,
}  # fmt: skip
