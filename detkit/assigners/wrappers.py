"""Assigners made of other assigners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner
from detkit.registry import ASSIGNERS, AssignerNode, Fraction, PositiveInt
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets

ROUNDING = 1e-3
"""Pixels by which the middle of an anchor's corners may miss the cell that it was made for."""


@ASSIGNERS.register()
class InsideImageAssigner(Assigner):
    """Another assigner that sees only the anchors whose middle lies in the image; those in the padding are not matched.

    Without it they may be matched, and are background else; a small image in a batch of large ones has many.
    MMDetection trains its detectors with anchors in this way, and ignores those in the padding but in VFNet.

    Args:
        assigner: the assigner.
        divisor: the image counts as padded to a multiple of it, in pixels.
        outside: what the others are, `ignored` or `background`.
    """

    def __init__(
        self,
        *,
        assigner: AssignerNode,
        divisor: PositiveInt = 32,
        outside: Literal["ignored", "background"] = "ignored",
    ) -> None:
        inner: Assigner = ASSIGNERS.build(assigner)
        super().__init__(ignore_overlap=inner.ignore_overlap, chunk_elements=inner.chunk_elements)
        self.assigner, self.divisor = inner, divisor
        self.outside = IGNORED if outside == "ignored" else BACKGROUND
        self.positive_iou, self.forces_best = inner.positive_iou, inner.forces_best
        self.changes_at = inner.changes_at

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        if candidates.size is None:
            return self.assigner(candidates, targets)  # type: ignore[no-any-return]
        height, width = (-(-side // self.divisor) * self.divisor for side in candidates.size)
        middle = box_ops.centres(candidates.anchors)
        inside = (middle < middle.new_tensor((width, height)) - ROUNDING).all(dim=1).nonzero()[:, 0]
        found: Assignment = self.assigner(rows_of(candidates, inside), targets)
        labels = torch.full_like(candidates.anchors[:, 0], self.outside, dtype=torch.int64).index_put(
            (inside,), found.labels
        )
        matched = torch.zeros_like(labels).index_put((inside,), found.matched)
        quality = found.quality
        if quality is not None:
            quality = quality.new_zeros(len(labels)).index_put((inside,), quality)
        pairs = None if found.pairs is None else (inside[found.pairs[0]], found.pairs[1])
        return Assignment(labels, matched, quality, pairs)


@ASSIGNERS.register()
class WarmupAssigner(Assigner):
    """One assigner first, another one later: TOOD begins with ATSS (2108.07755, section 4).

    Args:
        first: the assigner that the training begins with.
        then: the one after it.
        until: fraction of the training after which `then` takes over. Losses and weights with `until: null`
            change at the same step.
        hard_first: the target quality of the positives of `first` is 1, instead of the IoU of the predicted box where
            that assigner gives none.
    """

    def __init__(
        self, *, first: AssignerNode, then: AssignerNode, until: Fraction = 0.1, hard_first: bool = False
    ) -> None:
        before, after = ASSIGNERS.build(first), ASSIGNERS.build(then)
        super().__init__(ignore_overlap=after.ignore_overlap, chunk_elements=after.chunk_elements)
        self.first, self.then, self.until, self.hard_first = before, after, until, hard_first
        self.positive_iou, self.forces_best, self.changes_at = after.positive_iou, after.forces_best, until

    def forward(self, candidates: Candidates, targets: Targets) -> Assignment:
        early = candidates.progress < self.until
        found: Assignment = (self.first if early else self.then)(candidates, targets)
        if early and self.hard_first:
            return replace(found, quality=torch.ones_like(found.labels, dtype=torch.float32))
        return found


def rows_of(candidates: Candidates, rows: Tensor) -> Candidates:
    """Some of the candidates; rows: (n,) ascending."""
    ends = torch.tensor(candidates.level_sizes).cumsum(0).to(rows.device)
    before = torch.searchsorted(rows, ends)
    sizes = before.diff(prepend=before.new_zeros(1)).tolist()

    def chosen(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: compute()[rows]

    return replace(
        candidates,
        anchors=candidates.anchors[rows],
        level_sizes=tuple(sizes),
        scores=chosen(candidates.scores),
        boxes=chosen(candidates.boxes),
        quality=chosen(candidates.quality),
        ignored=None if candidates.ignored is None else candidates.ignored[rows],
    )
