"""A few validation images with the detections of each variant, for the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detkit.compare.plan import Plan, RunKey
from detkit.data.datasets.base import DetectionDataset
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.errors import CORRECT, judge
from detkit.evaluate.report.pictures import Thumbnail
from detkit.utils.types import Tree

SAMPLES, SAMPLE_SIDE, SAMPLE_THRESHOLD = 6, 320, 0.3


def sample_images(
    plan: Plan, dataset: DetectionDataset, truth: GroundTruth, detections: Mapping[RunKey, Shard]
) -> list[Tree]:
    """The first images with objects, and the detections of the first seed that all variants finished."""
    names = [variant.name for variant in plan.variants]
    seed = next((s for s in plan.seeds if all((name, s) in detections for name in names)), None)
    if seed is None:
        return []
    chosen = np.flatnonzero(np.diff(truth.offsets) > 0)[:SAMPLES].tolist()
    return [sample_image(i, dataset, truth, {name: detections[name, seed] for name in names}) for i in chosen]


def sample_image(i: int, dataset: DetectionDataset, truth: GroundTruth, detections: Mapping[str, Shard]) -> Tree:
    """Image number i of the data set; boxes in pixels of the thumbnail."""
    small = Thumbnail.of(dataset.checked_image(i), SAMPLE_SIDE)
    names, objects = dataset.classes.names, slice(truth.offsets[i], truth.offsets[i + 1])

    def judged(shard: Shard) -> list[Tree]:
        of_image = detections_of(shard, truth.image_ids[i])
        kinds = judge(truth, of_image, most=len(of_image.boxes) or 1).kind
        return [
            {
                "box": small.scaled(box),
                "score": round(float(score), 3),
                "label": names[k],
                "correct": bool(kind == CORRECT),
            }
            for box, score, k, kind in zip(of_image.boxes, of_image.scores, of_image.labels, kinds, strict=True)
            if score >= SAMPLE_THRESHOLD
        ]

    return {
        "image_id": int(truth.image_ids[i]),
        "width": small.width,
        "height": small.height,
        "image": small.uri,
        "truth": [
            {"box": small.scaled(box), "label": names[k]}
            for box, k, crowd in zip(truth.boxes[objects], truth.labels[objects], truth.crowd[objects], strict=True)
            if not crowd
        ],
        "detections": {name: judged(shard) for name, shard in detections.items()},
    }


def detections_of(shard: Shard, image_id: int) -> Shard:
    """The detections of one image, by falling score."""
    position = int(np.searchsorted(shard.image_ids, image_id))
    rows = slice(int(shard.counts[:position].sum()), int(shard.counts[: position + 1].sum()))
    order = np.argsort(-shard.scores[rows], kind="stable")
    boxes, scores, labels = shard.boxes[rows][order], shard.scores[rows][order], shard.labels[rows][order]
    return Shard(np.array([image_id]), np.array([len(boxes)]), boxes, scores, labels)
