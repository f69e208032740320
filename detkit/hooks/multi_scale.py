"""Trains on images of changing size."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor
from torch.nn import functional as F

from detkit.boxes import rescale
from detkit.hooks.base import Hook, Training, step_random
from detkit.registry import HOOKS, Positive, PositiveInt
from detkit.structures import Batch


@HOOKS.register()
class MultiScale(Hook):
    """Scales the images of a step, and their boxes, by a factor that changes every few steps.

    The factor is a function of the seed and the step, so a run that was resumed draws the same ones; every image is
    scaled by itself, on the device, so the step is the same however it is divided. `data.loader.pad_to` does not hold
    for scaled images.

    Args:
        factors: factors on height and width, one of which is drawn with equal chance.
        every: steps between two draws of the factor.
        until: steps after which the images keep their size; null for none.
    """

    def __init__(
        self,
        *,
        factors: Annotated[list[Positive], MinLen(1)] = [0.8, 0.9, 1.0, 1.1, 1.2],  # noqa: B006
        every: PositiveInt = 10,
        until: PositiveInt | None = None,
    ) -> None:
        self.factors, self.every, self.until = factors, every, until

    def factor(self, trainer: Training) -> float:
        """The factor of the coming step."""
        if self.until is not None and trainer.step >= self.until:
            return 1.0
        return step_random(trainer.seed, trainer.step // self.every, "MultiScale").choice(self.factors)

    def transform_batch(self, trainer: Training, batch: Batch) -> Batch:
        factor = self.factor(trainer)
        return batch if factor == 1 else scaled(batch, factor, trainer.size_divisor)


def scaled(batch: Batch, factor: float, divisor: int) -> Batch:
    """The batch with every image and its boxes scaled; sides are rounded to whole pixels."""
    old = [(int(height), int(width)) for height, width in batch.sizes.tolist()]
    new = [(max(1, round(height * factor)), max(1, round(width * factor))) for height, width in old]
    height, width = (-(-max(size[k] for size in new) // divisor) * divisor for k in (0, 1))
    images = batch.images.new_zeros(len(batch), batch.images.shape[1], height, width)
    for image, target, (h, w), (new_h, new_w) in zip(batch.images, images, old, new, strict=True):
        target[:, :new_h, :new_w] = resized(image[:, :h, :w], (new_h, new_w))
    targets = [
        replace(t, boxes=rescale(t.boxes, o, n), ignore=rescale(t.ignore, o, n))
        for t, o, n in zip(batch.targets, old, new, strict=True)
    ]
    return replace(batch, images=images, sizes=torch.tensor(new), targets=targets)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, h, w) uint8 -> (3, *size) uint8, bilinear with antialiasing."""
    values = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False, antialias=True)
    return values[0].round_().clamp_(0, 255).to(torch.uint8)
