"""Pascal VOC folders: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages."""

from __future__ import annotations

import re
from pathlib import Path

from detkit.data.datasets.base import DetectionDataset, named_classes
from detkit.data.datasets.found import FoundData, Place, canonical_split
from detkit.data.datasets.image_files import Folders, check_files, images_by_stem
from detkit.data.datasets.problems import COUNTS_FROM_ZERO, OTHER_IMAGE, PARTS, UNLISTED, Problems
from detkit.data.datasets.records import BadBoxes, RecordsBuilder
from detkit.data.datasets.voc_file import VocAnnotation, annotation_files, describe_near_stem, read_split, read_xml
from detkit.registry import DATASETS, PathStr
from detkit.utils.console import plural, shorten_list


@DATASETS.register()
class VocDataset(DetectionDataset):
    """Boxes of a Pascal VOC folder; `difficult` boxes are ignore regions.

    Args:
        root: folder with Annotations, ImageSets/Main and JPEGImages.
        split: name of a list in ImageSets/Main.
        class_names: the classes and their order; null takes all names in Annotations, of every split, in alphabetical
            order, so that every split has the same.
        class_map: {old: new} renames and merges classes.
        ignore_classes: classes whose objects become ignore regions.
        one_based: pixels are counted from 1 and the last one belongs to the box, as in the VOC challenges; x1 and y1
            then lose one.
        bad_boxes: what training does with boxes without area, inverted, not finite or outside: drop, clip or error.
        keep_empty: whether to keep images without objects.
    """

    @classmethod
    def find(cls, place: Place) -> FoundData | None:
        lists = place.path / "ImageSets" / "Main"
        if not lists.is_dir() or not (place.path / "Annotations").is_dir():
            return None
        names = sorted(path.stem for path in lists.glob("*.txt"))
        splits = {canonical_split(n) or n: n for n in names if not re.search(r"_(train|val|trainval|test)$", n)}
        nodes = {split: {"type": "VocDataset", "root": str(place.path), "split": n} for split, n in splits.items()}
        return FoundData("Pascal VOC", "its folders Annotations and ImageSets/Main", nodes)

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
        name, folder = f"{root} ({split})", Path(root) / "JPEGImages"
        stems = read_split(Path(root), split)
        annotations = read_annotations(Path(root) / "Annotations", stems, name)
        class_list = sorted({item.name for annotation in annotations.values() for item in annotation.objects})
        if not class_list:
            raise ValueError(f"{name}: no file in Annotations has an object, so there is nothing to detect")
        classes, label = named_classes(enumerate(class_list)), {n: k for k, n in enumerate(class_list)}
        files, paths, folders = images_by_stem(folder), [], Folders()
        builder = RecordsBuilder(name, bad_boxes)
        for i, stem in enumerate(stems):
            path = str(find_image(stem, annotations[stem].filename, files, folder, builder.problems))
            paths.append(path)
            add_image(builder, i + 1, path, f"{stem}.xml", annotations[stem], label, one_based)
        check_duplicates(paths, folders, stems, name)
        annotated = [str(path) for stem, path in files.items() if stem in annotations]
        for path in folders.unlisted_images(str(folder), [*paths, *annotated]):
            builder.problems.add(UNLISTED, path)
        self.finish(
            name, classes, builder, keep_empty=keep_empty, class_names=class_names, class_map=class_map,
            ignore_classes=ignore_classes,
        )  # fmt: skip
        check_files([self.records.path(i) for i in range(len(self))], name, str(folder), folders)


def add_image(
    builder: RecordsBuilder, image_id: int, path: str, source: str, annotation: VocAnnotation, label: dict[str, int],
    one_based: bool,
) -> None:  # fmt: skip
    """Adds one image with its objects; counts parts, and boxes that begin at 0 where pixels count from 1."""
    shift = 1.0 if one_based else 0.0
    boxes, xywh = [], []
    for i, item in enumerate(annotation.objects, start=1):
        x1, y1, x2, y2 = item.box
        has_pixels = x2 > x1 and y2 > y1 and max(item.box) > 1.1
        # A box without area, or in fractions, as published must not be moved before it is seen.
        boxes.append([x1 - shift, y1 - shift, x2, y2] if has_pixels else item.box)
        xywh.append([x1 - shift, y1 - shift, x2 - x1 + shift, y2 - y1 + shift])
        if item.parts:
            builder.problems.add(PARTS, f"{source}, box {i} ({item.name})", count=item.parts)
        if one_based and min(x1, y1) == 0 and has_pixels:
            builder.problems.add(COUNTS_FROM_ZERO, f"{source}, box {i} {item.box}")
    labels = [label[item.name] for item in annotation.objects]
    difficult = [item.difficult for item in annotation.objects]
    builder.add(image_id, path, annotation.size, boxes, labels, difficult, source=source, xywh=xywh)


def find_image(stem: str, stated: str, files: dict[str, Path], folder: Path, problems: Problems) -> Path:
    """The image with the name of an annotation; of several suffixes, the one that it states.

    Counts an annotation that states another image that is there, as a copied one does.
    """
    plain = Path(stated)
    if plain.stem == stem and (folder / plain.name).is_file():
        return folder / plain.name
    image = files.get(stem)
    if image is not None and stated != image.name and plain.stem in files:
        problems.add(OTHER_IMAGE, f"{stem}.xml: <filename> is {stated}, {image.name} is used")
    return image or folder / (stated or f"{stem}.jpg")


def check_duplicates(paths: list[str], folders: Folders, stems: list[str], name: str) -> None:
    """Raises ValueError if several annotations are of one image file: each would lack the objects of the others."""
    duplicates = folders.duplicates(paths).values()
    if duplicates:
        texts = [f"{paths[same[0]]} ({', '.join(f'{stems[i]}.xml' for i in same)})" for same in duplicates]
        count = plural(len(duplicates), "image file belongs", "image files belong")
        raise ValueError(
            f"{name}: {count} to several annotations, so the objects of one would be "
            f"background in the other: {shorten_list(texts)}. Put all objects into one annotation and list that one"
        )


def read_annotations(folder: Path, stems: list[str], name: str) -> dict[str, VocAnnotation]:
    """Image name -> annotation, of every file of the folder; FileNotFoundError for an image without one."""
    files = annotation_files(folder)
    if not files:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        suffixes = sorted({p.suffix for p in entries if not p.is_dir()})
        folders = [p.name for p in entries if p.is_dir()]
        hint = f"; it has files with the suffix {shorten_list(suffixes)}" if suffixes else ""
        hint += f"; subfolders are not read: {shorten_list(folders)}" if folders else ""
        raise FileNotFoundError(f"{name}: no .xml file in {folder}{hint}")
    known = {p.stem for p in files}
    missing = [describe_near_stem(s, known) for s in stems if s not in known]
    if missing:
        count = plural(len(missing), "image has", "images have")
        raise FileNotFoundError(f"{name}: {count} no file in Annotations: {shorten_list(missing)}")
    return {p.stem: read_xml(p) for p in files}
