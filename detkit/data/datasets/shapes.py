"""A data set made on the spot: textured shapes over cluttered backgrounds, the same for a seed everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import RecordsBuilder
from detkit.data.datasets.scene import SHAPES, Scene, draw_scene
from detkit.registry import DATASETS
from detkit.registry.arguments import within
from detkit.structures import ClassMap

if TYPE_CHECKING:
    from PIL.Image import Image

SPLITS = {"train": 0, "val": 1, "test": 2}
CLASSES = ClassMap(tuple(SHAPES), tuple(range(1, len(SHAPES) + 1)))


@DATASETS.register()
class ShapesDataset(DetectionDataset):
    """Seven kinds of shapes, 8 to 100 px, rotated, textured, occluding each other, among clutter.

    One image in twelve has no object; as many have a crowd, a patch of many small overlapping shapes of
    one kind, as an ignore region. num_images: of this split. split: the splits of a seed share no image.
    seed: of the pictures, not of the training. size: side of an image, pixels. All images are held in
    memory (size * size * 3 bytes each), drawn when the data set is built, some milliseconds each.
    """

    def __init__(
        self,
        *,
        num_images: int = 1000,
        split: Literal["train", "val", "test"] = "train",
        seed: int = 0,
        size: int = 160,
    ) -> None:
        if num_images < 1:
            raise ValueError(f"num_images: {num_images}; a split needs at least one image")
        within("num_images", num_images, 1, 1_000_000)
        within("size", size, 1, 2048)
        within("seed", seed, 0, 2**63 - 1)
        if size < 64:
            raise ValueError(f"size: {size} px leaves no room for shapes; want at least 64")
        name = f"shapes ({split}, seed {seed})"
        self.pixels = np.empty((num_images, size, size, 3), dtype=np.uint8)
        builder = RecordsBuilder(name, "error")
        for i in range(num_images):
            scene = scene_of(seed, split, i, size)
            self.pixels[i] = scene.pixels
            builder.add(
                i + 1,
                f"{split}_{i + 1:06d}.png",
                (size, size),
                scene.boxes,
                scene.labels,
                scene.is_crowd,
                scene.area,
            )
        self.finish(name, CLASSES, builder, keep_empty=True)

    def load_image(self, index: int) -> Image:
        """The drawn image."""
        from PIL import Image

        return Image.fromarray(self.pixels[index])

    def write_coco(self, images: Path, annotations: Path) -> None:
        """PNG files into the folder `images` and a COCO instances file at `annotations`."""
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
            for box, label, crowd, area in zip(
                a.boxes.tolist(), a.labels.tolist(), a.is_ignore.tolist(), a.area.tolist(), strict=True
            ):
                x1, y1, x2, y2 = box
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": self.classes.ids[label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                )
        annotations.write_text(json.dumps(content), encoding="utf-8")


def scene_of(seed: int, split: str, index: int, size: int) -> Scene:
    """The scene of one image: a function of the arguments alone."""
    return draw_scene(np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, SPLITS[split], index]))), size)
