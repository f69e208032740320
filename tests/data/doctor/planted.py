"""A small clean data set, in which one fault at a time is planted."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detkit.data.datasets.coco import CocoDataset
from detkit.data.doctor.subject import Subject

WIDTH, HEIGHT = 96, 64
IMAGES = {"train": 40, "val": 32}


class Planted:
    """COCO files of noise images: an apple in the left half and a pear in the right half of each.

    boxes: split -> for each image its (category, x, y, width, height). sizes: split -> stated (width, height).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.categories = {1: "apple", 2: "pear"}
        self.boxes: dict[str, list[list[tuple[float, ...]]]] = {}
        self.sizes: dict[str, list[tuple[int, int]]] = {}
        for seed, (split, count) in enumerate(IMAGES.items()):
            random = np.random.default_rng(seed)
            (root / split).mkdir(parents=True)
            self.boxes[split] = [[self.draw(random, 1), self.draw(random, 2)] for _ in range(count)]
            self.sizes[split] = [(WIDTH, HEIGHT)] * count
            for i in range(count):
                self.save(split, i, noise(random))

    def draw(self, random: np.random.Generator, category: int) -> tuple[float, ...]:
        width, height = random.integers(15, 20, 2).tolist()
        left = int(random.integers(3, 24)) + (46 if category == 2 else 0)
        return category, left, int(random.integers(3, HEIGHT - height - 3)), width, height

    def path(self, split: str, index: int) -> Path:
        return self.root / split / f"{split}{index}.jpg"

    def save(self, split: str, index: int, image: Image.Image, orientation: int | None = None) -> None:
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        image.save(self.path(split, index), quality=95, exif=exif)

    def copy(self, source: tuple[str, int], target: tuple[str, int]) -> None:
        """Makes an image a copy of another, file and boxes."""
        self.path(*target).write_bytes(self.path(*source).read_bytes())
        self.boxes[target[0]][target[1]] = list(self.boxes[source[0]][source[1]])

    def write(self) -> None:
        for split, boxes in self.boxes.items():
            sizes = self.sizes[split]
            images = [
                {"id": i + 1, "file_name": f"{split}{i}.jpg", "width": w, "height": h} for i, (w, h) in enumerate(sizes)
            ]
            rows = [(i, box) for i, of_image in enumerate(boxes) for box in of_image]
            annotations = [
                {"id": k + 1, "image_id": i + 1, "category_id": box[0], "bbox": list(box[1:]), "iscrowd": 0,
                 "area": box[3] * box[4]}
                for k, (i, box) in enumerate(rows)
            ]  # fmt: skip
            categories = [{"id": i, "name": name} for i, name in self.categories.items()]
            content = {"images": images, "annotations": annotations, "categories": categories}
            (self.root / f"{split}.json").write_text(json.dumps(content))

    def datasets(self, **options: Any) -> dict[str, CocoDataset]:
        self.write()
        root = self.root
        return {
            split: CocoDataset(annotations=str(root / f"{split}.json"), images=str(root / split), **options)
            for split in self.boxes
        }

    def subject(self, splits: Sequence[str] = ("train", "val")) -> Subject:
        return Subject.of("planted", {n: d for n, d in self.datasets().items() if n in splits})


def noise(random: np.random.Generator) -> Image.Image:
    """An image of coarse noise, which looks like no other."""
    return Image.fromarray(np.kron(random.integers(0, 255, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8))


def brighter(path: Path, by: int) -> Image.Image:
    """An image that looks the same and has other bytes."""
    pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes()))).astype(int)
    return Image.fromarray(np.clip(pixels + by, 0, 255).astype(np.uint8))
