"""Detections in pixels of the network's input, brought back to pixels of the image on disk."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from detkit import boxes as box_ops
from detkit.structures import Detections


def to_original(detections: Sequence[Detections], sizes: Tensor, original_sizes: Tensor) -> list[Detections]:
    """Rescales each image's detections from `sizes` (B, 2) to `original_sizes` (B, 2), height x width, on the CPU."""
    return [
        Detections(
            box_ops.rescale(d.boxes.float(), (int(h), int(w)), (int(to_h), int(to_w))).cpu(),
            d.scores.float().cpu(),
            d.labels.cpu(),
        )
        for d, (h, w), (to_h, to_w) in zip(detections, sizes.tolist(), original_sizes.tolist(), strict=True)
    ]
