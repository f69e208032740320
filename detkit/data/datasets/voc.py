"""Pascal VOC folders: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detkit.data.datasets.base import DetectionDataset, named_classes
from detkit.data.datasets.files import Folders, check_files, unlisted, ways_to_one_file
from detkit.data.datasets.images import images_by_stem
from detkit.data.datasets.problems import COUNTS_FROM_ZERO, OTHER_IMAGE, PARTS, UNLISTED, Problems
from detkit.data.datasets.records import BadBoxes, RecordsBuilder
from detkit.data.datasets.voc_file import annotation_files, near_stem, read_split, read_xml
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import counted, some


@DATASETS.register()
class VocDataset(DetectionDataset):
    """Boxes of a Pascal VOC folder; `difficult` boxes are ignore regions.

    root: folder with Annotations, ImageSets/Main and JPEGImages. split: name of a list in
    ImageSets/Main. class_names: the classes and their order; null takes all names in Annotations, of
    every split, in alphabetical order, so that every split has the same. one_based: pixels are counted
    from 1 and the last one belongs to the box, as in the VOC challenges; x1 and y1 then lose one.
    class_map, ignore_classes, bad_boxes, keep_empty: as for CocoDataset.
    """

    def __init__(
        self,
        *,
        root: PathStr,
        split: str,
        class_names: list[str] | None = None,
        class_map: dict[str, str] | None = None,
        ignore_classes: list[str] | None = None,
        one_based: bool = True,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        name = f"{root} ({split})"
        stems = read_split(Path(root), split)
        parsed = read_annotations(Path(root) / "Annotations", stems, name)
        found = sorted({item["name"] for xml in parsed.values() for item in xml["objects"]})
        if not found:
            raise ValueError(f"{name}: no file in Annotations has an object, so there is nothing to detect")
        classes = named_classes(list(enumerate(found)), None, name)
        label = {n: k for k, n in enumerate(classes.names)}
        files = images_by_stem(Path(root) / "JPEGImages")
        builder = RecordsBuilder(name, bad_boxes)
        for i, stem in enumerate(stems):
            objects = parsed[stem]["objects"]
            image = image_of(stem, parsed[stem]["filename"], files, Path(root) / "JPEGImages", builder.problems)
            note_objects(objects, f"{stem}.xml", one_based, builder.problems)
            shift = 1.0 if one_based else 0.0
            boxes = [item["box"] for item in objects]
            # A box without area, or in fractions, as published must not be moved before it is seen.
            moved = [[x1 - shift, y1 - shift, x2, y2] if is_plain(b) else b for b in boxes for x1, y1, x2, y2 in [b]]
            builder.add(
                i + 1,
                str(image),
                parsed[stem]["size"],
                moved,
                [label[item["name"]] for item in objects],
                [item["difficult"] for item in objects],
                source=f"{stem}.xml",
                xywh=[[x1 - shift, y1 - shift, x2 - x1 + shift, y2 - y1 + shift] for x1, y1, x2, y2 in boxes],
            )
        folders, folder = Folders(), str(Path(root) / "JPEGImages")
        paths = builder.paths()
        check_one_way(paths, folders, stems, name)
        annotated = [str(path) for stem, path in files.items() if stem in parsed]
        for path in unlisted(folder, [*paths, *annotated], folders):
            builder.problems.add(UNLISTED, path)
        self.finish(
            name, classes, builder, keep_empty=keep_empty, class_names=class_names, class_map=class_map,
            ignore_classes=ignore_classes,
        )  # fmt: skip
        check_files([self.records.path(i) for i in range(len(self))], name, folder, folders)


def image_of(stem: str, stated: str, files: dict[str, Path], folder: Path, problems: Problems) -> Path:
    """The image of an annotation: of its own name, and of the suffix that it states where there are several.

    Counts an annotation that states another image that is there, as a copied one does.
    """
    plain = Path(stated)
    if plain.stem == stem and (folder / plain.name).is_file():
        return folder / plain.name
    image = files.get(stem)
    if image is not None and stated != image.name and plain.stem in files:
        problems.add(OTHER_IMAGE, f"{stem}.xml: <filename> is {stated}, {image.name} is used")
    return image or folder / (stated or f"{stem}.jpg")


def note_objects(objects: list[dict[str, Any]], source: str, one_based: bool, problems: Problems) -> None:
    """Counts parts, and boxes that begin at 0 where pixels are counted from 1."""
    for i, item in enumerate(objects, start=1):
        if item["parts"]:
            problems.add(PARTS, f"{source}, box {i} ({item['name']})", item["parts"])
        if one_based and min(item["box"][:2]) == 0 and is_plain(item["box"]):
            problems.add(COUNTS_FROM_ZERO, f"{source}, box {i} {item['box']}")


def check_one_way(paths: list[str], folders: Folders, stems: list[str], name: str) -> None:
    """Raises ValueError if one image file is that of several annotations: each one's objects lack in the other."""
    shared = ways_to_one_file(paths, folders)
    if shared:
        texts = [f"{paths[where[0]]} ({', '.join(f'{stems[i]}.xml' for i in where)})" for where in shared.values()]
        count = counted(len(shared), "image file belongs", "image files belong")
        raise ValueError(
            f"{name}: {count} to several annotations, so the objects of one would be "
            f"background in the other: {some(texts)}. Put all objects into one annotation and list that one"
        )


def is_plain(box: list[float]) -> bool:
    """Whether a box has an area and pixels for a unit."""
    x1, y1, x2, y2 = box
    return x2 > x1 and y2 > y1 and max(box) > 1.1


def read_annotations(folder: Path, stems: list[str], name: str) -> dict[str, dict[str, Any]]:
    """Image name -> annotation, of every file of the folder; FileNotFoundError for an image without one."""
    files = annotation_files(folder)
    if not files:
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        others, below = sorted({p.suffix for p in there if not p.is_dir()}), [p.name for p in there if p.is_dir()]
        hint = f"; it has files of the kind {some(others)}" if others else ""
        hint += f"; folders below it are not read: {some(below)}" if below else ""
        raise FileNotFoundError(f"{name}: no .xml file in {folder}{hint}")
    known = {p.stem for p in files}
    lacking = [near_stem(s, known) for s in stems if s not in known]
    if lacking:
        raise FileNotFoundError(
            f"{name}: {counted(len(lacking), 'image has', 'images have')} no file in Annotations: {some(lacking)}"
        )
    return {p.stem: read_xml(p) for p in files}
