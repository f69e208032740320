"""A data set: images, their boxes and the names of the classes."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from PIL import Image

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import RecordsBuilder
from detkit.registry import DATASETS, PositiveInt
from detkit.structures import ClassMap

CLASSES = ClassMap(names=("red", "green", "blue"), ids=(1, 2, 3))


@DATASETS.register()
class MyDataset(DetectionDataset):
    """Coloured squares on grey noise, generated in memory; to be replaced by your own images.

    Args:
        split: training or validation images.
        num_images: number of images.
        size: side of an image, in pixels.
    """

    # The arguments are the keys of the config. Their types say the bounds. For a folder of your own, write
    # `root: PathStr` (import it from detkit.registry): a relative path then starts at the folder of the config.
    def __init__(
        self,
        *,
        split: Literal["train", "val"] = "train",
        num_images: PositiveInt = 100,
        size: Annotated[int, Ge(48)] = 96,
    ) -> None:
        # bad_boxes: what to do with boxes that are empty or reach out of the image: drop, clip or error.
        builder = RecordsBuilder(f"my_dataset ({split})", bad_boxes="error")
        self.images = []

        # Change from here: for every image its file, its (height, width) and its boxes, xyxy in pixels.
        for i in range(num_images):
            random = np.random.default_rng([split == "val", i])
            pixels = random.integers(90, 160, (size, size, 3), dtype=np.uint8)
            side, label = int(random.integers(12, 40)), int(random.integers(3))
            x, y = (int(v) for v in random.integers(0, size - side, 2))
            pixels[y : y + side, x : x + side] = 255 * (np.arange(3) == label)
            self.images.append(pixels)
            boxes = [(x, y, x + side, y + side)]
            builder.add(i + 1, f"{split}_{i}.png", (size, size), boxes, labels=[label], is_ignore=[False])

        # keep_empty: images without objects are used in training, too.
        self.finish(f"my_dataset ({split})", CLASSES, builder, keep_empty=True)

    # Leave this out where images are files: the paths given to the builder are then opened.
    def load_image(self, index: int) -> Image.Image:
        """An image as 8-bit RGB."""
        return Image.fromarray(self.images[index])
