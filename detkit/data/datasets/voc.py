"""Pascal VOC folders: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detkit.data.datasets.base import DetectionDataset, check_files, named_classes
from detkit.data.datasets.images import images_by_stem
from detkit.data.datasets.records import BadBoxes, RecordsBuilder, some
from detkit.files import PathStr
from detkit.registry import DATASETS


@DATASETS.register()
class VocDataset(DetectionDataset):
    """Boxes of a Pascal VOC folder; `difficult` boxes are ignore regions.

    root: folder with Annotations, ImageSets/Main and JPEGImages. split: name of a list in
    ImageSets/Main. class_names: the classes and their order; null takes all names in Annotations, of
    every split, in alphabetical order, so that every split has the same. one_based: pixels are counted
    from 1 and the last one belongs to the box, as in the VOC challenges; x1 and y1 then lose one.
    bad_boxes, keep_empty: as for CocoDataset.
    """

    def __init__(
        self,
        *,
        root: PathStr,
        split: str,
        class_names: list[str] | None = None,
        one_based: bool = True,
        bad_boxes: BadBoxes = "drop",
        keep_empty: bool = True,
    ) -> None:
        name = f"{root} ({split})"
        stems = read_split(Path(root), split)
        parsed = {p.stem: read_xml(p) for p in sorted((Path(root) / "Annotations").glob("*.xml"))}
        lacking = [s for s in stems if s not in parsed]
        if lacking:
            raise FileNotFoundError(f"{name}: {len(lacking)} images have no file in Annotations: {some(lacking)}")
        found = sorted({item["name"] for xml in parsed.values() for item in xml["objects"]})
        classes = named_classes(list(enumerate(found)), class_names, name)
        label = {n: k for k, n in enumerate(classes.names)}
        files = images_by_stem(Path(root) / "JPEGImages")
        builder = RecordsBuilder(name, bad_boxes)
        for i, stem in enumerate(stems):
            objects = parsed[stem]["objects"]
            shift = 1.0 if one_based else 0.0
            boxes = [item["box"] for item in objects]
            # A box without area as published must not gain a pixel by the shift before it is seen.
            moved = [
                [x1 - shift, y1 - shift, x2, y2] if x2 > x1 and y2 > y1 else b for b in boxes for x1, y1, x2, y2 in [b]
            ]
            builder.add(
                i + 1,
                str(files.get(stem, Path(root) / "JPEGImages" / f"{stem}.jpg")),
                parsed[stem]["size"],
                moved,
                [label[item["name"]] for item in objects],
                [item["difficult"] for item in objects],
                source=f"{stem}.xml",
            )
        self.finish(name, classes, builder, keep_empty=keep_empty)
        check_files([self.records.path(i) for i in range(len(self))], name)


def read_split(root: Path, split: str) -> list[str]:
    """Image names of a split; errors name the list and what else there is."""
    lists = root / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        there = sorted(p.stem for p in lists.glob("*.txt")) if lists.is_dir() else []
        hint = f"splits there: {some(there)}" if there else f"no folder of VOC layout ({lists} has no lists)"
        raise FileNotFoundError(f"no split {split!r}: {path}; {hint}")
    # The challenges' lists of a class have 1 or -1 behind the name; a name may have spaces itself.
    annotated = {p.stem for p in (root / "Annotations").glob("*.xml")}
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    stems = [line if line in annotated else line.split()[0] for line in lines]
    if not stems:
        raise ValueError(f"{path}: the split is empty")
    twice = sorted({s for s in stems if stems.count(s) > 1}) if len(set(stems)) != len(stems) else []
    if twice:
        raise ValueError(f"{path}: {len(twice)} images are listed twice: {some(twice)}")
    return stems


def read_xml(path: Path) -> dict[str, Any]:
    """One annotation file: size (height, width) and objects. Errors name the file."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.parse(path).getroot()
        size = root.find("size")
        height, width = (int(float(size.findtext(k) or -1)) if size is not None else -1 for k in ("height", "width"))
        objects = []
        for item in root.iter("object"):
            box = item.find("bndbox")
            if box is None:
                raise ValueError("an object has no bndbox")
            corners = [float(box.findtext(k) or "nan") for k in ("xmin", "ymin", "xmax", "ymax")]
            name = (item.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object has no name")
            objects.append(
                {
                    "name": name,
                    "box": corners,
                    "difficult": (item.findtext("difficult") or "0").strip() == "1",
                }
            )
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: not a VOC annotation: {error}") from None
    return {"size": (height, width) if height > 0 and width > 0 else (-1, -1), "objects": objects}
