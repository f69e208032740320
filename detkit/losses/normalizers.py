"""Normalizers: what the summed losses of a step are divided by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.losses.base import Normalizer
from detkit.registry import NORMALIZERS, FractionBelowOne, Positive, PositiveInt, enforce_bounds


@NORMALIZERS.register()
class PositiveCount(Normalizer):
    """The number of positives of the global batch, over all images, micro-batches and ranks, at least 1."""

    meaning = "positives in the global batch"


@NORMALIZERS.register()
class PerImagePositiveCount(Normalizer):
    """Divides each image's losses by its own positives (at least 1), then takes the mean over the global batch.

    An image with one object then weighs as much as one with fifty. Losses that mine over a batch get
    one image at a time.
    """

    meaning = "positives of each image, then images in the global batch"

    def forward(self, values: Tensor) -> Tensor:
        """Labels (B, A) -> number of images of this micro-batch."""
        return values.new_tensor(len(values))

    def image_weights(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> (B,) one over the positives of each image."""
        return 1 / (labels >= 0).sum(dim=1).clamp(min=1)


@NORMALIZERS.register()
class RunningPositiveCount(Normalizer):
    """Detectron2's rule for RetinaNet: a running mean of the number of positives per process.

    Gradients are divided by the mean times `processes`, as if each of so many processes divided by its mean and the
    processes were averaged. `processes` is a setting and not the number of those that train, so that the same config
    trains the same model on any number. Detectron2 keeps a mean in each process; here there is one, which is part
    of the checkpoint.

    Args:
        momentum: fraction that the mean keeps per step; the rest comes from the positives per process, at least 1.
        start: mean before the first step.
        processes: number of processes of the training whose numbers are to be reproduced.
    """

    meaning = "running mean of positives"
    average: Tensor

    def __init__(
        self, *, momentum: FractionBelowOne = 0.9, start: Positive = 100.0, processes: PositiveInt = 1
    ) -> None:
        super().__init__()
        self.momentum, self.processes = momentum, processes
        self.register_buffer("average", torch.tensor(float(start), dtype=torch.float64))

    def divisor(self, total: Tensor) -> Tensor:
        new = (total.to(self.average.dtype) / self.processes).clamp(min=1)
        self.average.copy_(new.lerp(self.average, self.momentum))
        return self.average * self.processes


@NORMALIZERS.register()
class EmaPositiveCount(Normalizer):
    """A moving average of the positives of the global batch, at least 1: steps with few objects weigh less.

    It starts with the first step's count, moves once per step, by a sum over all micro-batches and ranks, and is
    part of the checkpoint.

    Args:
        momentum: fraction that the average keeps per step.
    """

    meaning = "moving average of positives in the global batch"
    average: Tensor

    def __init__(self, *, momentum: FractionBelowOne = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(-1.0))  # below zero before the first step

    def divisor(self, total: Tensor) -> Tensor:
        new = total.to(self.average.dtype)
        self.average.copy_(torch.where(self.average < 0, new, new.lerp(self.average, self.momentum)))
        return self.average.clamp(min=1)


@NORMALIZERS.register()
class ImagePositiveCount(Normalizer):
    """The number of positives of the global batch, in which an image without any counts as 1.

    That is MMDetection's rule for RetinaNet, SSD, ATSS and others (its sampler's `avg_factor`).
    """

    meaning = "positives in the global batch, at least 1 of each image"

    def forward(self, values: Tensor) -> Tensor:
        """Labels (B, A) -> positives of each image, at least 1, summed."""
        return (values >= 0).sum(dim=1).clamp(min=1).sum()


@NORMALIZERS.register()
class LevelBalancedCount(ImagePositiveCount):
    """`ImagePositiveCount` that also weighs every level by how few positives it had so far, as DDOD does.

    The factor of a level is 2 - (n - least) / (most - least), with n the positives of all steps before this one: 1 for
    the level that had the most, 2 for the one that had the fewest, and 1 for all of them while they had equally many.
    The counts are part of the checkpoint. MMDetection counts the step itself, too, and keeps one count for classes and
    boxes together; here every normalizer counts what it divides.

    Source: 2107.02963, the loss over the levels of the pyramid.

    Args:
        levels: number of levels of the pyramid.
    """

    meaning = "positives in the global batch, at least 1 of each image, levels balanced"
    seen: Tensor

    def __init__(self, *, levels: PositiveInt = 5) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(levels, dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        """Labels (B, A) of one level -> (1 + levels,) numbers, see `count`."""
        return self.count(values, (values.shape[1],))

    def count(self, values: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Labels (B, A) -> (1 + levels,) positives of the images, at least 1 of each, and of every level."""
        levels = len(self.seen)
        if len(level_sizes) > levels:
            raise ValueError(f"levels: {levels} must be the number of levels, {len(level_sizes)}")
        per_level = [(labels >= 0).sum() for labels in torch.split(values, list(level_sizes), dim=1)]
        empty = [values.new_zeros(())] * (levels - len(per_level))
        return torch.stack([super().forward(values), *per_level, *empty])

    def divisor(self, total: Tensor) -> Tensor:
        self.seen += total[1:].to(self.seen)
        return total[0].clamp(min=1)

    def level_weights(self) -> Tensor:
        least, most = self.seen.amin(), self.seen.amax()
        return torch.where(most > least, 2 - (self.seen - least) / (most - least).clamp(min=1), 1.0)


@NORMALIZERS.register()
class PositiveOrImageCount(Normalizer):
    """The number of positives of the global batch, or that of its images if it is greater (PAA, 2007.08103)."""

    meaning = "positives in the global batch, at least as many as images"

    def forward(self, values: Tensor) -> Tensor:
        """Labels (B, A) -> (2,) positives and images."""
        return torch.stack(((values >= 0).sum(), values.new_tensor(len(values))))

    def divisor(self, total: Tensor) -> Tensor:
        return total.amax().clamp(min=1)


@enforce_bounds
class SumNormalizer(Normalizer):
    """A sum over the positives of the global batch.

    Args:
        least: smallest divisor, so that a step with next to nothing does not explode.
    """

    def __init__(self, *, least: Positive = 1.0) -> None:
        super().__init__()
        self.least = least

    def forward(self, values: Tensor) -> Tensor:
        """Target quality (B, A) or weights (P,) -> their sum, in double so that any split of a batch gives it."""
        return values.double().sum()

    def divisor(self, total: Tensor) -> Tensor:
        return total.clamp(min=self.least)


@NORMALIZERS.register()
class QualitySum(SumNormalizer):
    """The sum of the targets of the class loss over the global batch (TOOD, 2108.07755; RTMDet, 2212.07784).

    Where the class loss takes no soft targets they are 1, and the sum is the number of positives.

    Args:
        least: smallest divisor, so that a step with next to nothing does not explode.
    """

    meaning = "sum of the target scores in the global batch"
    counts = "quality"


@NORMALIZERS.register()
class WeightSum(SumNormalizer):
    """The sum of the weights that `losses.box_weight` gives the positives of the global batch; for `box_normalizer`.

    Args:
        least: smallest divisor, so that a step with next to nothing does not explode.
    """

    meaning = "sum of the box weights in the global batch"
    counts = "weights"
