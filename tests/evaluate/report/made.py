"""A small data set on disk, and evaluations of given detections on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detkit.data.datasets.coco import CocoDataset
from detkit.evaluate.arrays import Shard
from detkit.evaluate.coco import CocoEvaluator, ground_truth_from
from detkit.evaluate.options import EvaluatorOptions
from detkit.evaluate.report.findings import Evaluated, find
from detkit.evaluate.report.slices import chosen_columns
from detkit.utils.types import Tree

WIDTH, HEIGHT = 96, 64
Objects = Sequence[tuple[Sequence[float], int]]
"""Of an image: (x1, y1, x2, y2) and label."""
Found = Sequence[tuple[Sequence[float], float, int]]
"""Of an image: (x1, y1, x2, y2), score and label."""


@dataclass
class Made:
    """A data set. extra: of each image, further keys."""

    root: Path
    names: Sequence[str]
    images: Sequence[Objects]
    extra: Sequence[dict[str, Any]] = ()
    crowds: set[tuple[int, int]] = field(default_factory=set)
    """(image, number of the object) that are ignore regions."""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        entries: list[Tree] = []
        annotations: list[Tree] = []
        for i, objects in enumerate(self.images):
            Image.new("RGB", (WIDTH, HEIGHT), (40 * i % 256, 90, 120)).save(self.root / f"{i}.png")
            more = self.extra[i] if self.extra else {}
            # Ids fall, so that the order of the file is not that of the ids.
            entry = {"id": 100 - i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT}
            entries.append({**entry, **more})
            for n, ((x1, y1, x2, y2), k) in enumerate(objects):
                box = [x1, y1, x2 - x1, y2 - y1]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": 100 - i, "category_id": k + 1, "bbox": box,
                     "area": box[2] * box[3], "iscrowd": int((i, n) in self.crowds)}
                )  # fmt: skip
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(self.names)]
        content = {"images": entries, "annotations": annotations, "categories": categories}
        (self.root / "a.json").write_text(json.dumps(content))
        self.dataset = CocoDataset(annotations=str(self.root / "a.json"), images=str(self.root))

    def evaluated(self, found: Sequence[Found], **options: Any) -> Evaluated:
        evaluator = CocoEvaluator(self.dataset.classes, ground_truth_from(self.dataset), EvaluatorOptions(**options))
        rows = [row for image in found for row in image]
        evaluator.merge(
            [
                Shard(
                    100 - np.arange(len(found)),
                    np.array([len(image) for image in found]),
                    np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
                    np.array([row[1] for row in rows], np.float32),
                    np.array([row[2] for row in rows], np.int64),
                )
            ]
        )
        return Evaluated(evaluator.compute(), self.dataset, evaluator.sorted(), evaluator.options)

    def find(self, found: Sequence[Found], slices: Sequence[str] = (), **options: Any) -> Tree:
        """The findings of a report, as they are after JSON."""
        content = find(self.evaluated(found, **options), "Evaluation of it", chosen_columns(self.dataset, slices))
        plain: Tree = json.loads(json.dumps(content, allow_nan=False))
        return plain
