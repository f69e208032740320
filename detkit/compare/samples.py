"""A few validation images with what each variant finds in them, for the report."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from detkit.compare.errors import CORRECT, judge
from detkit.compare.plan import Plan
from detkit.evaluate.arrays import GroundTruth, Shard

SAMPLES, SAMPLE_SIDE, SAMPLE_THRESHOLD = 6, 320, 0.3


def samples(plan: Plan, dataset: Any, truth: GroundTruth, shards: dict[str, dict[int, Shard]]) -> list[dict[str, Any]]:
    """A few validation images with what each variant finds in them, of the first seed that all have."""
    seed = next((s for s in plan.seeds if all(s in runs for runs in shards.values())), None)
    if seed is None:
        return []
    objects = np.diff(truth.offsets)
    chosen = [int(i) for i in np.flatnonzero(objects > 0)[:SAMPLES]]
    return [sample(i, dataset, truth, {name: runs[seed] for name, runs in shards.items()}) for i in chosen]


def sample(i: int, dataset: Any, truth: GroundTruth, shards: dict[str, Shard]) -> dict[str, Any]:
    """Image number i of the data set; boxes in pixels of the small picture."""
    image = dataset.checked_image(i)
    factor = min(1.0, SAMPLE_SIDE / max(image.size))
    small = image.convert("RGB").resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=80)
    names = dataset.classes.names
    own = slice(truth.offsets[i], truth.offsets[i + 1])
    alone = GroundTruth(
        truth.image_ids[i : i + 1], np.array([0, own.stop - own.start]), truth.boxes[own], truth.labels[own],
        truth.crowd[own], truth.area[own],
    )  # fmt: skip

    def placed(box: Any) -> list[float]:
        return [round(float(v) * factor, 1) for v in box]

    def detections(shard: Shard) -> list[dict[str, Any]]:
        at = int(np.searchsorted(shard.image_ids, truth.image_ids[i]))
        rows = slice(int(shard.counts[:at].sum()), int(shard.counts[: at + 1].sum()))
        order = np.argsort(-shard.scores[rows], kind="stable")
        boxes, scores, labels = shard.boxes[rows][order], shard.scores[rows][order], shard.labels[rows][order]
        one = Shard(truth.image_ids[i : i + 1], np.array([len(boxes)]), boxes, scores, labels)
        kinds = judge(alone, one, most=len(boxes) or 1).kind
        return [
            {"box": placed(b), "score": round(float(s), 3), "label": names[k], "correct": bool(kind == CORRECT)}
            for b, s, k, kind in zip(boxes, scores, labels, kinds, strict=True)
            if s >= SAMPLE_THRESHOLD
        ]

    return {
        "image_id": int(truth.image_ids[i]),
        "width": small.width,
        "height": small.height,
        "image": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
        "truth": [
            {"box": placed(b), "label": names[k]}
            for b, k, crowd in zip(alone.boxes, alone.labels, alone.crowd, strict=True)
            if not crowd
        ],
        "detections": {name: detections(shard) for name, shard in shards.items()},
    }
