"""A synthetic data set: textured shapes over cluttered backgrounds, the same for a seed on every machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval
from PIL import Image

from detkit.boxes import to_xywh
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import RecordsBuilder
from detkit.data.datasets.scene import SHAPES, draw_scene
from detkit.registry import DATASETS, Seed
from detkit.structures import ClassMap

SPLITS = {"train": 0, "val": 1, "test": 2}
NumImages = Annotated[int, Interval(ge=1, le=1_000_000)]
ImageSize = Annotated[int, Interval(ge=64, le=2048)]
"""Side of an image, pixels; a smaller one has no room for shapes."""
CLASSES = ClassMap(tuple(SHAPES), tuple(range(1, len(SHAPES) + 1)))


@DATASETS.register()
class ShapesDataset(DetectionDataset):
    """Seven kinds of shapes, 8 to 100 px, rotated, textured, occluding each other, among clutter.

    One image in twelve has no object; as many have a crowd, a patch of many small overlapping shapes of
    one kind, as an ignore region. All images are held in memory (size * size * 3 bytes each), drawn when the data set
    is built, some milliseconds each.

    Args:
        num_images: images of this split.
        split: the splits of a seed share no image.
        seed: of the pictures, not of the training.
        size: side of an image, pixels.
    """

    def __init__(
        self,
        *,
        num_images: NumImages = 1000,
        split: Literal["train", "val", "test"] = "train",
        seed: Seed = 0,
        size: ImageSize = 160,
    ) -> None:
        name = f"shapes ({split}, seed {seed})"
        self.pixels = np.empty((num_images, size, size, 3), dtype=np.uint8)
        builder = RecordsBuilder(name, "error")
        for i in range(num_images):
            bits = np.random.PCG64(np.random.SeedSequence([seed, SPLITS[split], i]))
            scene = draw_scene(np.random.Generator(bits), size)
            self.pixels[i] = scene.pixels
            path = f"{split}_{i + 1:06d}.png"
            builder.add(i + 1, path, (size, size), scene.boxes, scene.labels, scene.is_crowd, scene.area)
        self.finish(name, CLASSES, builder, keep_empty=True)

    def load_image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def write_coco(self, images: Path, annotations: Path) -> None:
        """Writes PNG files into the folder `images` and a COCO instances file at `annotations`."""
        images.mkdir(parents=True, exist_ok=True)
        annotations.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
        for k, name in zip(self.classes.ids, self.classes.names, strict=True):
            content["categories"].append({"id": k, "name": name, "supercategory": "shape"})
        for i in range(len(self)):
            image_id, path = int(self.records.image_ids[i]), self.records.path(i)
            height, width = self.records.sizes[i].tolist()
            self.load_image(i).save(images / path)
            content["images"].append({"id": image_id, "file_name": path, "height": height, "width": width})
            a = self.records.annotation(i)
            columns = to_xywh(a.boxes.astype(np.float64)), a.labels, a.area, a.is_ignore
            for box, label, area, crowd in zip(*(column.tolist() for column in columns), strict=True):
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": self.classes.ids[label],
                        "bbox": box,
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                )
        annotations.write_text(json.dumps(content), encoding="utf-8")
