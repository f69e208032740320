"""Projects and exports of the VGG Image Annotator, as JSON or CSV."""

from __future__ import annotations

import re

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.entries import found_text, has_ignore_flag, nodes_of, recognised
from detkit.data.datasets.found import FoundData, Place
from detkit.data.datasets.image_finder import ImageFinder, refuse_duplicates
from detkit.data.datasets.problems import UNNAMED_CLASS, Problems
from detkit.data.datasets.records import BadBoxes, ImageRecord
from detkit.data.datasets.via_file import Region, box_of, class_attribute, class_of, read_via
from detkit.registry import DATASETS, PathStr

JSON_MARKS = re.compile(r'"_via_|^\{"[^"]*":\{[^{]*"filename":.*"regions":[\[{]')
CSV_MARKS = re.compile(r"^[^\n]*filename[^\n]*region_shape_attributes")
ONLY_CLASS = "object"


@DATASETS.register()
class ViaDataset(DetectionDataset):
    """Boxes of a file of the VGG Image Annotator; regions with a true attribute `difficult` are ignore regions.

    A rectangle is a box; a polygon, circle or ellipse gives the box around it; points and lines give none. Where no
    region has an attribute, as in a file with objects of one kind, all are of the class "object".

    Args:
        annotations: project (JSON) or export (JSON or CSV).
        images: folder of the images, with subfolders.
        class_attribute: region attribute that is the class; null takes the only one, or one with a usual name such as
            class or label.
        class_names: the classes and their order; null takes those of the regions, in alphabetical order.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        files = recognised(place, ".json", JSON_MARKS) + recognised(place, ".csv", CSV_MARKS)
        if not files:
            return None
        return FoundData("VIA", found_text(files, place, "with regions"), nodes_of("ViaDataset", files, place))

    def __init__(
        self,
        *,
        annotations: PathStr,
        images: PathStr,
        class_attribute: str | None = None,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        problems = Problems()
        entries = read_via(annotations)
        if not entries:
            raise ValueError(f"{annotations}: it lists no image")
        attribute = class_attribute or guess(entries, annotations)
        finder = ImageFinder(images, problems)
        records = [record(name, regions, attribute, finder, annotations, problems) for name, regions in entries]
        refuse_duplicates([r.path for r in records], [r.source for r in records], annotations)
        self.finish_images(
            annotations, records, folder=images, problems=problems, bad_boxes=bad_boxes, keep_empty=keep_empty,
            class_names=class_names, class_map=class_map, ignore_classes=ignore_classes,
        )  # fmt: skip


def guess(entries: list[tuple[str, list[Region]]], path: str) -> str | None:
    return class_attribute([region for _, regions in entries for region in regions], path)


def record(
    name: str, regions: list[Region], attribute: str | None, finder: ImageFinder, path: str, problems: Problems
) -> ImageRecord:  # fmt: skip
    """The record of an image."""
    named = [(region, box) for region in regions if (box := box_of(region, problems)) is not None]
    if attribute is None:
        for region, _ in named:
            problems.add(UNNAMED_CLASS, region.where)
    classes = [ONLY_CLASS if attribute is None else class_of(region, attribute) for region, _ in named]
    ignore = [has_ignore_flag(region.attributes) for region, _ in named]
    return ImageRecord(
        path=finder.find(name, f"{path}: {name}"),
        boxes=[box for _, box in named],
        names=classes,
        is_ignore=ignore,
        source=name,
    )
