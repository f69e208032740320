"""Anchor shapes by clustering the boxes of a data set: k-means on 1 - IoU (1612.08242, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.analyze.anchor_coverage import Coverage, Sample, measure
from detkit.anchors.grid import ExplicitAnchors

MOST_BOXES = 20_000
"""Boxes that are clustered; of more, a random sample."""
ROUNDS, RESTARTS = 100, 3
LEAST_CELLS = (0.0, 2.0, 4.0)
"""Ways to divide objects among levels: by rank, and to the coarsest level of which they are this many cells large."""
Sizes = list[list[tuple[float, float]]]


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 2) and (M, 2) widths and heights -> (N, M) IoU of boxes with one centre."""
    shared = torch.minimum(a[:, None], b[None]).prod(dim=2)
    return shared / (a.prod(dim=1)[:, None] + b.prod(dim=1)[None] - shared)


def k_means(shapes: Tensor, count: int, seed: int = 0) -> Tensor:
    """(N, 2) widths and heights, N >= 1 -> (count, 2) centres with a high mean best IoU, by area.

    Starts as k-means++ does (each next centre is drawn by its squared distance 1 - IoU from the centres so far),
    a few times, and keeps the best. A cluster that loses its boxes keeps its centre.
    """
    generator = torch.Generator().manual_seed(seed)
    best, best_iou = shapes[:1], -1.0
    for _ in range(RESTARTS):
        centres = _spread(shapes, count, generator)
        nearest = torch.full((len(shapes),), -1)
        for _ in range(ROUNDS):
            previous, nearest = nearest, shape_iou(shapes, centres).argmax(dim=1)
            if torch.equal(previous, nearest):
                break
            sums = torch.zeros_like(centres).index_add_(0, nearest, shapes)
            number = torch.bincount(nearest, minlength=count)[:, None]
            centres = torch.where(number > 0, sums / number.clamp(min=1), centres)
        mean = float(shape_iou(shapes, centres).amax(dim=1).mean())
        if mean > best_iou:
            best, best_iou = centres, mean
    return best[best.prod(dim=1).argsort()]


def _spread(shapes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    first = torch.randint(len(shapes), (1,), generator=generator)
    centres = shapes[first]
    while len(centres) < count:
        distance = (1 - shape_iou(shapes, centres).amax(dim=1)).clamp(min=0).square()
        if float(distance.sum()) == 0:  # fewer different shapes than centres: go on from scaled ones
            grown = centres[: count - len(centres)] * 2 ** (len(centres) / len(torch.unique(shapes, dim=0)) / count)
            centres = torch.cat((centres, grown))
            continue
        centres = torch.cat((centres, shapes[torch.multinomial(distance, 1, generator=generator)]))
    return centres


def fit(
    samples: Sequence[Sample], strides: Sequence[int], per_cell: int, positive: float, seed: int = 0
) -> tuple[Sizes, Coverage]:
    """Fits (width, height) of `per_cell` anchors for each level; returns them with their coverage.

    Tries several ways to divide the objects among the levels, over the real grid, and keeps the one with the
    highest recall at IoU `positive`; of equals (to a thousandth) the one with the highest mean best IoU.
    Raises ValueError if there are no objects.
    """
    boxes = torch.cat([s.boxes for s in samples]) if samples else torch.zeros(0, 4)
    if not len(boxes):
        raise ValueError("no objects to fit anchors to")
    shapes = box_ops.sides(boxes).double()
    if len(shapes) > MOST_BOXES:
        generator = torch.Generator().manual_seed(seed)
        shapes = shapes[torch.randperm(len(shapes), generator=generator)[:MOST_BOXES]]
    tried = [divide(shapes, strides, per_cell, cells, seed) for cells in LEAST_CELLS]
    coverages = [measure(ExplicitAnchors(strides=tuple(strides), sizes=sizes), strides, samples) for sizes in tried]
    return max(
        zip(tried, coverages, strict=True),
        key=lambda fit: (round(fit[1].recall(positive), 3), float(fit[1].iou.mean())),
    )


def divide(shapes: Tensor, strides: Sequence[int], per_cell: int, cells: float, seed: int) -> Sizes:
    """Clusters (N, 2) shapes into `per_cell` anchors per level.

    cells = 0: all at once, the smallest clusters for the finest level. Otherwise each level clusters the
    objects that are at least `cells` of its cells large and too small for the next one; one without
    objects takes the shapes of the nearest level with objects, scaled by the stride.
    """
    if cells == 0:
        centres = k_means(shapes, per_cell * len(strides), seed)
        return [_pairs(level) for level in torch.split(centres, per_cell)]
    side = shapes.prod(dim=1).sqrt()
    level = (side[:, None] >= cells * torch.tensor(strides[1:], dtype=side.dtype)).sum(dim=1)
    clusters = {i: k_means(shapes[level == i], per_cell, seed) for i in sorted(set(level.tolist()))}
    nearest = [min(clusters, key=lambda k: abs(k - i)) for i in range(len(strides))]
    return [_pairs(clusters[k] * (stride / strides[k])) for k, stride in zip(nearest, strides, strict=True)]


def _pairs(centres: Tensor) -> list[tuple[float, float]]:
    """Rounds to a tenth of a pixel."""
    return [(max(0.1, round(w, 1)), max(0.1, round(h, 1))) for w, h in centres.tolist()]


def to_yaml(sizes: Sizes, strides: Sequence[int]) -> str:
    """The `anchors` section of a config."""
    rows = [
        f"    - [{', '.join(f'[{w:g}, {h:g}]' for w, h in level)}]  # stride {stride}"
        for level, stride in zip(sizes, strides, strict=True)
    ]
    return "\n".join(["anchors:", "  type: ExplicitAnchors", "  sizes:", *rows])
