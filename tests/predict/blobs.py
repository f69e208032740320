"""A network that finds every coloured rectangle on black exactly, so that tests know what must come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from detkit.nms.base import NonMaxSuppression
from detkit.nms.methods import HardNMS
from detkit.predict.backend import InputRules
from detkit.structures import ClassMap, Detections

COLORS = {"red": 0, "green": 1, "blue": 2}


@dataclass
class Blobs:
    """See `Backend`. shapes: of the batches that came."""

    rules: InputRules = field(default_factory=lambda: InputRules(size_divisor=16))
    classes: ClassMap = field(default_factory=lambda: ClassMap(tuple(COLORS), (1, 2, 3)))
    nms: NonMaxSuppression = field(default_factory=HardNMS)
    max_detections: int = 100
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def network(self, images: Tensor, sizes: Tensor) -> list[Detections]:
        assert images.dtype == torch.uint8
        self.shapes.append(tuple(images.shape))
        return [blobs_of(image.numpy()[:, :h, :w]) for image, (h, w) in zip(images, sizes.tolist(), strict=True)]


def blobs_of(image: Any) -> Detections:
    """The rectangles of an image (3, H, W), larger ones first; the score grows with the brightness."""
    found = []
    for label in range(3):
        for rows, columns in ndimage.find_objects(ndimage.label(image[label] > 100)[0]):
            box = [columns.start, rows.start, columns.stop, rows.stop]
            found.append((float(image[label][rows, columns].max()) / 256, label, [float(v) for v in box]))
    found.sort(key=lambda blob: (-blob[0], blob[1]))
    boxes = torch.tensor([box for *_, box in found]).reshape(-1, 4)
    return Detections(boxes, torch.tensor([s for s, *_ in found]), torch.tensor([k for _, k, _ in found]).long())


def painted(width: int, height: int, boxes: list[tuple[str, tuple[int, int, int, int]]], value: int = 230) -> Any:
    """A black image (height, width, 3) with rectangles x1, y1, x2, y2."""
    image = np.zeros((height, width, 3), np.uint8)
    for color, (x1, y1, x2, y2) in boxes:
        image[y1:y2, x1:x2, COLORS[color]] = value
    return image
