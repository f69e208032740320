"""A data set: images, their boxes and the names of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.records import RecordsBuilder
from detkit.registry import DATASETS
from detkit.structures import ClassMap

if TYPE_CHECKING:
    from PIL.Image import Image

CLASSES = ClassMap(names=("red", "green", "blue"), ids=(1, 2, 3))


@DATASETS.register()
class MyDataset(DetectionDataset):
    """Coloured squares on grey noise, drawn on the spot; here to be replaced by your own images.

    split: which images. num_images: how many. size: side of an image, pixels.
    """

    # The arguments are the keys of the config. For a folder of your own, `root: PathStr` (of detkit.registry): what
    # is written in a config then counts from the config's folder.
    def __init__(self, *, split: Literal["train", "val"] = "train", num_images: int = 100, size: int = 96) -> None:
        if num_images < 1 or size < 48:
            raise ValueError(f"num_images: {num_images} must be at least 1, and size ({size}) at least 48")
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

        # keep_empty: images without objects are trained on too.
        self.finish(f"my_dataset ({split})", CLASSES, builder, keep_empty=True)

    # Leave this out where images are files: the paths given to the builder are then opened.
    def load_image(self, index: int) -> Image:
        """An image as 8-bit RGB."""
        from PIL import Image

        return Image.fromarray(self.images[index])
