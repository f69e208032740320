"""Plain data that passes between the rooms.

Letters, everywhere: B images in a batch, A anchors over all levels, C class columns, K classes,
G ground-truth boxes of an image. Boxes are (x1, y1, x2, y2) in pixels, float32. Labels are
0..K-1; the data set's own category ids live in `ClassMap` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

BACKGROUND = -1
"""`Assignment.labels` of an anchor that belongs to no object."""
IGNORED = -2
"""`Assignment.labels` of an anchor that no loss counts."""


@dataclass(frozen=True)
class FeatureShape:
    """Shape of a level of a backbone or neck: `channels`, and `stride` in input pixels per cell."""

    channels: int
    stride: int


@dataclass(frozen=True)
class ClassMap:
    """Maps contiguous labels to the data set's category ids and class names.

    `names[k]` and `ids[k]` belong to label k. The checkpoint contains it; loader, evaluator, predictor and drawing
    use it.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise ValueError(f"{len(self.names)} class names but {len(self.ids)} category ids")
        for what, values in (("class name", self.names), ("category id", self.ids)):
            twice = sorted({v for v in values if values.count(v) > 1}, key=str)
            if twice:
                raise ValueError(f"{what} given twice: {', '.join(map(repr, twice))}")

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Targets:
    """Ground truth of one image.

    boxes: (G, 4) float32 xyxy pixels of the image as the network sees it.
    labels: (G,) int64, 0..K-1.
    ignore: (I, 4) float32 xyxy: regions (crowd, difficult) whose anchors no loss counts.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor = field(default_factory=lambda: torch.zeros(0, 4))

    def to(self, device: torch.device | str) -> Targets:
        return Targets(self.boxes.to(device), self.labels.to(device), self.ignore.to(device))


@dataclass
class Batch:
    """A batch of images, as a loader yields it.

    images: (B, 3, H, W) uint8 RGB, each image in the top left corner, zeros elsewhere.
    sizes: (B, 2) int64, height and width of each image inside its padding.
    targets: one `Targets` per image.
    original_sizes: (B, 2) int64, height and width on disk (after EXIF orientation), before any resize.
    image_ids, paths: the data set's own id and the file, for messages and result files.
    """

    images: Tensor
    sizes: Tensor
    targets: list[Targets]
    original_sizes: Tensor
    image_ids: list[int]
    paths: list[str]

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        """Copies images and targets to `device`; the sizes stay on the host."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            targets=[t.to(device) for t in self.targets],
        )

    def pin_memory(self) -> Batch:
        """Copies the images to page-locked memory; a DataLoader calls it if CUDA is available."""
        return replace(self, images=self.images.pin_memory())


@dataclass
class Predictions:
    """Raw predictions of a detector, in training and evaluation.

    logits: (B, A, C). deltas: (B, A, D), D being `BoxCoder.num_columns`, 4 as a rule. anchors: (A, 4) xyxy pixels, the
    same for every image of the batch. level_sizes: number of anchors on each level, summing to A. quality: (B, A, 1)
    logits of the quality branch; None if the detector has none. sizes: (B, 2) height and width of each image inside its
    padding, on the host; None: no padding. first: (B, A, D) columns of the boxes before a head refined them; None if it
    doesn't.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    level_sizes: tuple[int, ...]
    quality: Tensor | None = None
    sizes: Tensor | None = None
    first: Tensor | None = None


@dataclass(frozen=True)
class Candidates:
    """The A anchors of one image and what the detector predicts for them: what an assigner chooses from.

    anchors: (A, 4) xyxy pixels. level_sizes: number of anchors on each level, summing to A.
    scores: call it for (A, K) scores in [0, 1] by the class loss's own link; boxes: call it for (A, 4) predicted
    boxes; quality: call it for (A,) quality scores in [0, 1], ones if the detector has no quality branch. They are
    computed when they are called, so an assigner that does not look at predictions pays nothing.
    ignored: (A,) bool, anchors that are IGNORED whatever the assigner says, because they lie in an ignore
    region; None if the image has no such region.
    progress: fraction of the training that is done, 0 in its first step. size: height and width of the image inside
    its padding; None if there is no padding.
    """

    anchors: Tensor
    level_sizes: tuple[int, ...]
    scores: Callable[[], Tensor]
    boxes: Callable[[], Tensor]
    ignored: Tensor | None = None
    quality: Callable[[], Tensor] = field(default=lambda: torch.ones(()))
    progress: float = 0.0
    size: tuple[int, int] | None = None


@dataclass
class Assignment:
    """Labels of the A anchors of one image, as an assigner returns them.

    labels: (A,) int64: the class 0..K-1 of a positive, BACKGROUND or IGNORED.
    matched: (A,) int64: row of the ground-truth box of a positive; undefined (but a valid index
    whenever G > 0) elsewhere.
    quality: (A,) float32 in [0, 1], the target score of a positive, for class losses that take
    soft targets; undefined elsewhere. None: the IoU of the predicted box with its object.
    pairs: (P,) anchors and (P,) their objects that the box losses compare, where an anchor may stand for several
    objects or more than once; None: every positive and its match.
    """

    labels: Tensor
    matched: Tensor
    quality: Tensor | None = None
    pairs: tuple[Tensor, Tensor] | None = None


@dataclass
class Match:
    """The assignments of a batch, stacked for the losses.

    labels: (B, A) int64 as in `Assignment`. image, row: (P,) indices of its P positives, or of the pairs that an
    assigner gives, image by image. boxes: (P, 4) their true boxes, xyxy pixels. classes: (P,) of these. quality: (B, A)
    float32 as in `Assignment`, 0 where there is no positive; None unless a part of the losses uses it.
    """

    labels: Tensor
    image: Tensor
    row: Tensor
    boxes: Tensor
    classes: Tensor
    quality: Tensor | None


@dataclass(frozen=True)
class Positives:
    """The P positives of a micro-batch, image by image, with what is predicted for them.

    labels: (P,) classes. anchors, boxes: (P, 4) their anchors and true boxes, xyxy pixels. deltas: (P, D) predicted,
    with graph. quality: (P,) logits of the quality branch, with graph; None if there is none. target_quality: (P,) in
    [0, 1] as in `Match`; None unless a part of the losses uses it. predicted: call it for (P, 4) predicted boxes, with
    graph. scores: call it for (P, K) predicted class scores, without graph.
    progress: fraction of the training that is done. first: (P, D) predicted before refinement, with graph; None if the
    head refines no boxes.
    """

    labels: Tensor
    anchors: Tensor
    boxes: Tensor
    deltas: Tensor
    quality: Tensor | None
    target_quality: Tensor | None
    predicted: Callable[[], Tensor]
    scores: Callable[[], Tensor]
    progress: float = 0.0
    first: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Losses:
    """Loss sums over one micro-batch, not yet divided.

    terms: name -> scalar with graph, weight included; `classification`, `box`, and those that parts add. normalizers:
    name of a divisor -> scalar or (S,) numbers without graph that this micro-batch adds to its total; the number of
    positives, as a rule. divided_by: term -> its divisor, for those that don't take the first. The trainer adds up over
    micro-batches and ranks and divides once, by `Normalizer.divisor` of the totals.
    """

    terms: dict[str, Tensor]
    normalizers: dict[str, Tensor]
    divided_by: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, classification: Tensor, box: Tensor, positives: Tensor) -> Losses:
        """Two terms, both divided by a number of positives."""
        return cls({"classification": classification, "box": box}, {"positives": positives})

    @property
    def classification(self) -> Tensor:
        return self.terms["classification"]

    @property
    def box(self) -> Tensor:
        return self.terms["box"]

    @property
    def normalizer(self) -> Tensor:
        """The numbers for the first divisor."""
        return next(iter(self.normalizers.values()))

    def divisor_of(self, term: str) -> str:
        """The divisor of a term."""
        return self.divided_by.get(term, next(iter(self.normalizers)))

    def total(self, factors: Mapping[str, Tensor] | None = None) -> Tensor:
        """The sum of the terms, not divided; `factors` by divisor are multiplied into them."""
        terms = iter(self.terms.items())
        scaled = (t if factors is None else t * factors[self.divisor_of(name)].to(t.dtype) for name, t in terms)
        total = next(scaled)
        for term in scaled:
            total = total + term
        return total

    def over(self, divisors: Mapping[str, Tensor]) -> Tensor:
        """The loss: every term over its divisor, as `DenseDetector.end_step` returns them."""
        if len(self.normalizers) == 1:
            return self.total() / divisors[next(iter(self.normalizers))]
        return self.total({name: 1 / divisor for name, divisor in divisors.items()})

    def mean(self) -> Tensor:
        """The loss of this micro-batch by itself: every term over `max(first number of its divisor, 1)`."""
        return self.over({name: n.reshape(-1)[0].clamp(min=1) for name, n in self.normalizers.items()})


@dataclass
class Detections:
    """Detected objects of one image: boxes (N, 4) xyxy pixels, scores (N,) descending, labels (N,) 0..K-1."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))
