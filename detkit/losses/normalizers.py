"""What the summed losses of a step are divided by."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.losses.base import Normalizer
from detkit.registry import NORMALIZERS


@NORMALIZERS.register()
class PositiveCount(Normalizer):
    """Positives of the whole batch: over every image, micro-batch and rank, at least one in all."""

    meaning = "the positives of the whole batch"

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> number of positives of this micro-batch."""
        return (labels >= 0).sum()


@NORMALIZERS.register()
class PerImagePositiveCount(Normalizer):
    """Each image's losses by its own positives (at least one), then the mean over the images of the whole batch.

    An image of one object then weighs as much as one of fifty. Losses that mine over a batch are handed
    one image at a time.
    """

    meaning = "each image's own positives, then the number of images"

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> number of images of this micro-batch."""
        return labels.new_tensor(len(labels))

    def image_weights(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> (B,) one over the positives of each image."""
        return 1 / (labels >= 0).sum(dim=1).clamp(min=1)


@NORMALIZERS.register()
class RunningPositiveCount(Normalizer):
    """Detectron2's rule for RetinaNet: a running mean of the positives of a process, begun at `start`.

    Every step the mean keeps `momentum` of itself and takes in the positives of a process, at least one: those of the
    whole batch over the number of processes. Gradients are divided by the mean times the number of processes, as if
    each process divided by the mean and the processes were averaged. One process gives Detectron2's numbers exactly.
    With several, Detectron2 keeps a mean in each; here there is one for all, part of the checkpoint, so that a resumed
    run goes the same way. The number of processes matters for the first dozens of steps only, while `start` fades.
    """

    meaning = "the running mean of the positives of a process, times the processes"
    average: Tensor

    def __init__(self, *, momentum: float = 0.9, start: float = 100.0) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: {momentum} is not in [0, 1)")
        if not start > 0:
            raise ValueError(f"start: {start} must be greater than 0")
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(float(start), dtype=torch.float64))

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> number of positives of this micro-batch."""
        return (labels >= 0).sum()

    def divisor(self, total: Tensor) -> Tensor:
        """See `Normalizer.divisor`."""
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        new = (total.to(self.average.dtype) / processes).clamp(min=1)
        self.average.copy_(new.lerp(self.average, self.momentum))
        return self.average * processes


@NORMALIZERS.register()
class EmaPositiveCount(Normalizer):
    """A moving average of the positives of the whole batch, at least one: steps with few objects weigh less.

    It begins with the first step's count and keeps `momentum` of itself in every further step. It moves
    once a step, from a sum over all micro-batches and ranks, and is part of the checkpoint.
    """

    meaning = "the moving average of the positives of the whole batch"
    average: Tensor

    def __init__(self, *, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: {momentum} is not in [0, 1)")
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(-1.0))  # below zero: no step yet

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, A) -> number of positives of this micro-batch."""
        return (labels >= 0).sum()

    def divisor(self, total: Tensor) -> Tensor:
        """See `Normalizer.divisor`."""
        new = total.to(self.average.dtype)
        self.average.copy_(torch.where(self.average < 0, new, new.lerp(self.average, self.momentum)))
        return self.average.clamp(min=1)
