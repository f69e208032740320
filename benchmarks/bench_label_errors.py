"""Precision of `detkit data check --with`: how many of the first suspects are label errors that were planted.

Plants errors in a training split: a fraction of its boxes is dropped or gets another class, half of each. Then trains
on the faulty labels (once on all images, and cross-fitted: each half of the images is judged by a training on the
other half), ranks the suspects, and counts how many of the first ones are planted. Errors that the data set had before
count as wrong, so the precision is a lower bound. The suspects of the labels as they were, with the same networks, are
not measured.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detkit.data.datasets.base import DetectionDataset


@dataclass(frozen=True)
class Planted:
    """An error that was planted: kind (dropped or swapped), image (its index), box (xyxy pixels)."""

    kind: str
    image: int
    box: tuple[float, float, float, float]


def plant(dataset: DetectionDataset, fraction: float, seed: int, file: Path) -> list[Planted]:
    """Writes the labels of a data set as COCO JSON with errors in a fraction of its boxes; returns the errors."""
    records, draw = dataset.records, random.Random(seed)
    rows = [(i, k) for i in range(len(records)) for k in range(len(records.annotation(i).labels))]
    chosen = draw.sample(rows, round(fraction * len(rows)))
    kinds = {row: "dropped" if n % 2 else "swapped" for n, row in enumerate(chosen)}
    planted, images, annotations = [], [], []
    for i in range(len(records)):
        height, width = dataset.image_size(i)
        images.append({"id": i + 1, "file_name": records.file_name(i), "width": width, "height": height})
        a = records.annotation(i)
        for k, (box, label) in enumerate(zip(a.boxes.tolist(), a.labels.tolist(), strict=True)):
            kind = kinds.get((i, k))
            if kind is not None:
                planted.append(Planted(kind, i, tuple(box)))
            if kind == "swapped":
                label = draw.choice([other for other in range(len(dataset.classes)) if other != label])
            if kind != "dropped":
                annotations.append(entry(len(annotations) + 1, i + 1, label + 1, box, bool(a.is_ignore[k])))
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(dataset.classes.names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content), encoding="utf-8")
    return planted


def entry(number: int, image: int, category: int, box: list[float], is_crowd: bool) -> dict[str, Any]:
    """An annotation of a COCO file."""
    x1, y1, x2, y2 = box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3],
        "iscrowd": int(is_crowd),
    }  # fmt: skip
