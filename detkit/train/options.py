"""The `train` section of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How long, how exactly and on what to train.

    iterations: optimizer steps. accumulate: micro-batches that a step's batch (`data.loader.batch_size`,
    over all processes) is worked off in, to save memory. clip_norm: largest gradient norm, null for no
    clipping. ema_decay: decay of the averaged weights, which are then the ones that are evaluated and
    predicted with; null for none. precision: what the network computes in; losses are float32 always.
    eval_every, checkpoint_every: steps between them, 0 for only at the end. keep_last: checkpoints kept
    besides the best. log_every: steps between plain log lines. threads: CPU threads, null for torch's
    choice. deterministic: the same run twice on the same machine gives the same weights. max_minutes:
    training time after which the run ends early, with everything that comes at the end. tensorboard:
    write event files into the run folder. hang_timeout: seconds without progress after which a process
    counts as hung, prints where it is and ends; null for never. pad_together: give all images of a step one
    size, over micro-batches and processes, as one batch would. lr_scaling, lr_batch_size: `optimizer.lr` is
    meant for steps of lr_batch_size images, and multiplied by the ratio of the batch size to it, or by its
    root. gradient_compression: bf16 halves what processes send each other, and rounds. parallel: ddp keeps
    the whole model in every process, fsdp divides parameters and optimizer state among them, for a model
    that is too large.
    """

    iterations: int
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    channels_last: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    eval_every: int = 0
    checkpoint_every: int = 500
    keep_last: int = 2
    log_every: int = 20
    threads: int | None = None
    deterministic: bool = True
    max_minutes: float | None = None
    tensorboard: bool = True
    pad_together: bool = True
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    lr_batch_size: int | None = None
    gradient_compression: Literal["none", "bf16"] = "none"
    hang_timeout: float | None = 300.0
    parallel: Literal["ddp", "fsdp"] = "ddp"

    def __post_init__(self) -> None:
        for name, least in (
            ("iterations", 1),
            ("accumulate", 1),
            ("eval_every", 0),
            ("checkpoint_every", 0),
            ("keep_last", 1),
            ("log_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"train.{name}: {getattr(self, name)} is less than {least}")
        for name in ("clip_norm", "threads", "max_minutes", "hang_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"train.{name}: {value} is not positive; null switches it off")
        if (self.lr_scaling == "none") != (self.lr_batch_size is None):
            raise ValueError(
                f"train.lr_scaling: {self.lr_scaling} with train.lr_batch_size {self.lr_batch_size}: a rule needs the "
                "batch size that optimizer.lr is meant for, and that size needs a rule"
            )
        if self.lr_batch_size is not None and self.lr_batch_size < 1:
            raise ValueError(f"train.lr_batch_size: {self.lr_batch_size} is less than 1")
        if self.parallel == "fsdp" and (self.precision == "fp16" or self.compile):
            other = "train.compile" if self.compile else "train.precision: fp16"
            raise ValueError(f"train.parallel: fsdp does not go with {other}; use ddp, or bf16 without compile")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"train.ema_decay: {self.ema_decay} is not between 0 and 1; null switches it off")

    def lr_factor(self, batch_size: int) -> float:
        """What `optimizer.lr` is multiplied by for steps of `batch_size` images."""
        if self.lr_batch_size is None:
            return 1.0
        ratio = batch_size / self.lr_batch_size
        return ratio if self.lr_scaling == "linear" else ratio**0.5
