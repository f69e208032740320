"""How a config's network sees the objects of each class: their size, their shape, and whether anchors reach them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.analyze.anchor_coverage import by_size, measure, read_samples
from detkit.config import Config
from detkit.data.build import build_transforms
from detkit.data.datasets.base import DetectionDataset
from detkit.data.doctor.findings import Case, Findings, Kind
from detkit.detectors.build import build_pyramid
from detkit.registry import ASSIGNERS

OUT_OF_REACH = Kind(
    "out-of-reach", "warning", "anchors fit the boxes of a class badly",
    "detkit anchors fit CONFIG fits anchors to the data; larger images in the network help small objects",
)  # fmt: skip
SMALL = Kind(
    "small-at-network", "warning", "objects of a class are only a few pixels large at the network's size",
    "enlarge the images in the network (ResizeShortestEdge), or cut them into tiles",
)  # fmt: skip
IMAGES = 2000
"""Images that are looked at."""
REACH = 0.9
"""Part of a class's boxes that should have an anchor of the assigner's IoU."""
SMALL_SIDE, SMALL_PART = 8.0, 0.25
"""Pixels at the network's size, and the part of a class that may be smaller."""
LEAST = 5


@dataclass(frozen=True)
class ClassFit:
    """Of the training objects of a class at the network's size: number, quartiles of side (pixels) and of height over
    width, the part smaller than `SMALL_SIDE`, and the part with an anchor of the assigner's IoU (None: it has none)."""

    name: str
    objects: int
    side: tuple[float, float, float]
    aspect: tuple[float, float, float]
    small: float
    reach: float | None

    def row(self) -> list[str]:
        """The cells of a table with the heads `HEAD`."""
        side, aspect = " / ".join(f"{v:.0f}" for v in self.side), " / ".join(f"{v:.2f}" for v in self.aspect)
        reach = "n/a" if self.reach is None else f"{100 * self.reach:.0f} %"
        return [self.name, str(self.objects), side, aspect, f"{100 * self.small:.0f} %", reach]


HEAD = (
    "class", "objects", "side, px: quartiles", "height : width: quartiles", f"below {SMALL_SIDE:g} px",
    "reached by anchors",
)  # fmt: skip


def fit_by_class(config: Config, dataset: DetectionDataset) -> list[ClassFit]:
    """The figures of every class with objects, as the first epoch of training shows them."""
    _, neck, anchors, _ = build_pyramid(config)
    strides = [shape.stride for shape in neck.out_shapes.values()]
    transforms, loader = build_transforms(config, "train"), config.options("data.loader")
    samples = list(read_samples(dataset, transforms, loader, seed=config.seed, limit=IMAGES, read_images=True))
    if not samples:
        return []
    coverage = measure(anchors, strides, samples)
    ordered = [sample for group in by_size(samples).values() for sample in group]
    labels = torch.cat([sample.labels for sample in ordered if sample.labels is not None])
    positive = ASSIGNERS.build(config.assigner).positive_iou
    reached = None if positive is None else coverage.iou >= positive
    return [
        figures(name, coverage.boxes[labels == k], None if reached is None else reached[labels == k])
        for k, name in enumerate(dataset.classes.names)
        if bool((labels == k).any())
    ]


def figures(name: str, boxes: Tensor, reached: Tensor | None) -> ClassFit:
    width, height = box_ops.sides(boxes).double().unbind(1)
    side = (width * height).sqrt()
    reach = None if reached is None else float(reached.double().mean())
    return ClassFit(
        name, len(boxes), quartiles(side), quartiles(height / width), float((side < SMALL_SIDE).double().mean()), reach
    )


def quartiles(values: Tensor) -> tuple[float, float, float]:
    low, middle, high = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)).tolist()
    return low, middle, high


def check_fit(fits: Sequence[ClassFit]) -> Findings:
    """Classes that anchors do not reach, or that are too small for the network."""
    findings = Findings()
    for fit in fits:
        if fit.objects < LEAST:
            continue
        if fit.reach is not None and fit.reach < REACH:
            text = f"{fit.name}: {100 * fit.reach:.0f} % of {fit.objects} boxes have an anchor of the assigner's IoU"
            findings.add(OUT_OF_REACH, [Case(split="train", text=text, weight=1 - fit.reach)])
        if fit.small > SMALL_PART:
            text = f"{fit.name}: {100 * fit.small:.0f} % of {fit.objects} boxes are below {SMALL_SIDE:g} px"
            findings.add(SMALL, [Case(split="train", text=text, weight=fit.small)])
    return findings
