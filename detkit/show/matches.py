"""Which anchors of an image learn what: positive, forced, ignored, and those that the class loss counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.assigners.base import Assigner, assign, in_ignore_region
from detkit.data.loader import LoaderOptions, Sample, collate_images
from detkit.detectors.dense import DenseDetector
from detkit.structures import BACKGROUND, IGNORED, Targets
from detkit.utils.console import shorten_list
from detkit.utils.types import Tree


@dataclass(frozen=True)
class ImageMatches:
    """The A anchors of one image, as the detector's assigner labels them, and what its class loss makes of them.

    sample: the image as the network sees it, before padding. anchors: (A, 4) xyxy pixels of it. level: (A,) index of
    each anchor's level. labels, matched: (A,) as in `Assignment`. forced: (A,) positives whose IoU with their object is
    below the assigner's threshold. in_region: (A,) ignored because of an ignore region. counted: (A,) anchors whose
    logits get a gradient from the class loss.
    """

    sample: Sample
    anchors: Tensor
    level: Tensor
    labels: Tensor
    matched: Tensor
    forced: Tensor
    in_region: Tensor
    counted: Tensor

    @property
    def positive(self) -> Tensor:
        return self.labels >= 0

    @property
    def ignored(self) -> Tensor:
        """(A,) ignored by the assigner, outside ignore regions."""
        return (self.labels == IGNORED) & ~self.in_region

    @property
    def background(self) -> Tensor:
        return self.labels == BACKGROUND

    @property
    def per_object(self) -> Tensor:
        """(G,) positives of each object."""
        return torch.bincount(self.matched[self.positive], minlength=len(self.sample.targets.boxes))


@dataclass(frozen=True)
class Counts:
    """Numbers of anchors: `positive`, of which `forced` and `dropped` (not counted by the class loss); `ignored` by the
    assigner; `in_region`; `background`, of which the class loss counts `mined`."""

    anchors: int = 0
    positive: int = 0
    forced: int = 0
    dropped: int = 0
    ignored: int = 0
    in_region: int = 0
    background: int = 0
    mined: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def match_image(detector: DenseDetector, sample: Sample, options: LoaderOptions) -> ImageMatches:
    """Runs a detector, in its present mode, on one sample and labels its anchors as a training step does."""
    device = next(detector.parameters()).device
    images, sizes = collate_images([sample.image], options.size_divisor, options.pad_to)
    targets = sample.targets.to(device)
    with torch.no_grad():
        pred = detector(images.to(device), sizes)
        candidates = detector.candidates(pred, 0)
        assignment = assign(detector.assigner, candidates, targets)
        match = detector.match(pred, [targets])
    logits = pred.logits.detach().float().requires_grad_()
    with torch.enable_grad():
        detector.class_loss(logits, match.labels, match.quality).backward()
    detector.class_loss.take_accumulated()
    sizes_of_levels = torch.tensor(pred.level_sizes, device=device)
    level = torch.repeat_interleave(torch.arange(len(sizes_of_levels), device=device), sizes_of_levels)
    matched = assignment.matched.where(assignment.labels >= 0, 0)
    counted = torch.zeros_like(level, dtype=torch.bool) if logits.grad is None else (logits.grad[0] != 0).any(dim=-1)
    tensors = (
        pred.anchors, level, assignment.labels, matched,
        forced_positives(detector.assigner, pred.anchors, assignment.labels, matched, targets),
        in_regions(detector.assigner, pred.anchors, targets), counted,
    )  # fmt: skip
    return ImageMatches(sample, *(tensor.cpu() for tensor in tensors))


def forced_positives(assigner: Assigner, anchors: Tensor, labels: Tensor, matched: Tensor, targets: Targets) -> Tensor:
    """(A,) positives below the IoU threshold of the assigner; none if it has no threshold."""
    forced = torch.zeros_like(labels, dtype=torch.bool)
    rows = (labels >= 0).nonzero()[:, 0]
    if assigner.positive_iou is not None and len(rows):
        forced[rows] = box_ops.paired_iou(anchors[rows], targets.boxes[matched[rows]]) < assigner.positive_iou
    return forced


def in_regions(assigner: Assigner, anchors: Tensor, targets: Targets) -> Tensor:
    """(A,) anchors that are ignored because they lie in an ignore region."""
    if assigner.ignore_overlap is None or not len(targets.ignore):
        return torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    return in_ignore_region(anchors, targets.ignore, assigner.ignore_overlap, assigner.chunk_elements)


def count(matches: ImageMatches, mask: Tensor | None = None) -> Counts:
    """The counts of an image, or of those of its anchors that a mask (A,) selects."""
    chosen = torch.ones_like(matches.positive) if mask is None else mask

    def number(anchors: Tensor) -> int:
        return int((anchors & chosen).sum())

    return Counts(
        anchors=number(chosen),
        positive=number(matches.positive),
        forced=number(matches.forced),
        dropped=number(matches.positive & ~matches.counted),
        ignored=number(matches.ignored),
        in_region=number(matches.in_region),
        background=number(matches.background),
        mined=number(matches.background & matches.counted),
    )


def count_levels(matches: ImageMatches, levels: int) -> list[Counts]:
    """The counts of every level."""
    return [count(matches, matches.level == i) for i in range(levels)]


def unmatched(matches: ImageMatches) -> list[int]:
    """Rows of the objects without a positive anchor."""
    rows: list[int] = (matches.per_object == 0).nonzero()[:, 0].tolist()
    return rows


def table(levels: dict[str, Counts]) -> list[str]:
    """The counts by level, with a line for all of them."""
    columns = ("anchors", "positive", "forced", "dropped", "ignored", "in region", "background", "in the loss")
    rows = [*levels.items(), ("all levels", sum(levels.values(), Counts()))]
    lines = [f"{'':14}" + "".join(f"{name:>12}" for name in columns)]
    return lines + [f"{name:14}" + "".join(f"{value:12d}" for value in vars(counts).values()) for name, counts in rows]


LEGEND = (
    "forced: positive below the assigner's IoU, as an object's best anchor; dropped: positive, but not in the class "
    "loss; ignored: neither positive nor background; in region: ignored in a crowd or difficult region; in the loss: "
    "background anchors that the class loss counts"
)


def describe_unmatched(images: Iterable[ImageMatches], names: tuple[str, ...]) -> str | None:
    """A sentence on the objects without a positive anchor, which names the first few; None if there are none."""
    images = list(images)
    texts = [
        f"{m.sample.path.rpartition('/')[2]} {names[int(m.sample.targets.labels[row])]} "
        f"[{', '.join(f'{v:.0f}' for v in m.sample.targets.boxes[row].tolist())}]"
        for m in images
        for row in unmatched(m)
    ]
    total = sum(len(m.sample.targets.boxes) for m in images)
    if not texts:
        return None
    return f"{len(texts)} of {total} objects have no positive anchor: {shorten_list(texts)}"


def to_json(matches: ImageMatches, levels: list[str], names: tuple[str, ...]) -> Tree:
    """Everything that is counted of an image."""
    targets, per_object = matches.sample.targets, matches.per_object.tolist()
    forced = torch.bincount(matches.matched[matches.forced], minlength=len(targets.boxes)).tolist()
    return {
        "image_id": matches.sample.image_id,
        "file": matches.sample.path,
        "size": list(matches.sample.image.shape[-2:]),
        "objects": [
            {"class": names[label], "box": box, "positive": positive, "forced": below}
            for label, box, positive, below in zip(
                targets.labels.tolist(), targets.boxes.tolist(), per_object, forced, strict=True
            )
        ],
        "ignore_regions": targets.ignore.tolist(),
        "levels": {name: vars(c) for name, c in zip(levels, count_levels(matches, len(levels)), strict=True)},
    }
