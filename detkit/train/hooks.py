"""The three moments of a run at which something may be hung in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.train.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step did, on the host.

    step: steps done, this one included. loss, classification, box: divided by `normalizer`, as the
    gradient was, over all micro-batches and processes. gradient_norm: before clipping. images: of all processes.
    data_seconds: spent waiting for the loader. skipped: fp16 gradients overflowed
    and the weights stayed as they were.
    """

    step: int
    loss: float
    classification: float
    box: float
    normalizer: float
    gradient_norm: float
    lr: float
    images: int
    data_seconds: float
    skipped: bool = False


class Hook:
    """Something that happens around training. A subclass overrides what it needs; hooks run in order."""

    def before_train(self, trainer: Trainer) -> None:
        """Once, before the first step; `trainer.step` is above 0 in a resumed run."""

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """After every step, when the weights have changed. May set `trainer.stop`."""

    def after_train(self, trainer: Trainer) -> None:
        """Once, after the last step, or after the one at which `trainer.stop` was set."""
