"""Small data sets for the tests of writers: COCO files written by hand, so that no writer is tested by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.coco import CocoDataset


@dataclass
class Picture:
    """An image file and its objects (class, x, y, width, height)."""

    name: str
    boxes: Sequence[tuple[str, float, float, float, float]] = ()
    size: tuple[int, int] = (64, 48)
    crowd: Sequence[int] = ()
    image_id: int | None = None
    more: Mapping[str, float] = field(default_factory=dict)


def coco_set(root: Path, classes: Sequence[str], pictures: Sequence[Picture], file: str = "a.json") -> DetectionDataset:
    """Images below root/images, each of its own colour, and a COCO file, as a data set."""
    content: dict[str, list[object]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(classes)],
    }
    for i, picture in enumerate(pictures, start=1):
        path = root / "images" / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", picture.size, (7 * i % 256, 40, 90)).save(path, format="png")
        image_id = picture.image_id or i
        width, height = picture.size
        content["images"].append({"id": image_id, "file_name": picture.name, "width": width, "height": height})
        for k, (name, *box) in enumerate(picture.boxes):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": 10 + list(classes).index(name),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(k in picture.crowd),
                    **picture.more,
                }
            )
    (root / file).write_text(json.dumps(content))
    return CocoDataset(annotations=str(root / file), images=str(root / "images"))


Row = tuple[str, tuple[float, ...], bool]


def rows(dataset: DetectionDataset) -> list[list[Row]]:
    """For each image its boxes as the file has them: class, x, y, width, height, whether it is ignored."""
    truth, start, images = dataset.records.truth, 0, []
    for end in truth.ends.tolist():
        of_image = [
            (dataset.classes.names[truth.labels[r]], tuple(truth.boxes[r].tolist()), bool(truth.is_ignore[r]))
            for r in range(start, end)
        ]
        images.append(of_image)
        start = end
    return images


def pixels(dataset: DetectionDataset) -> list[bytes]:
    """The pixels of each image."""
    return [dataset.load_image(i).tobytes() for i in range(len(dataset))]


def training(dataset: DetectionDataset) -> list[list[tuple[str, tuple[float, ...]]]]:
    """For each image the boxes of training: class, xmin, ymin, xmax, ymax."""
    annotations = [dataset.records.annotation(i) for i in range(len(dataset))]
    return [
        [(dataset.classes.names[k], tuple(b)) for k, b in zip(a.labels.tolist(), a.boxes.tolist(), strict=True)]
        for a in annotations
    ]
