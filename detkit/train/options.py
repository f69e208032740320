"""The `train` section of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detkit.registry import NonNegativeInt, OpenFraction, Positive, PositiveInt, enforce_bounds


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How long, how exactly and on what to train.

    Args:
        iterations: optimizer steps.
        accumulate: micro-batches that a step's batch (`data.loader.batch_size`, over all processes) is divided into,
            to save memory.
        clip_norm: largest gradient norm; null for no clipping.
        ema_decay: decay of the averaged weights, which are then the ones that evaluation and prediction use; null for
            none.
        ema_warmup: steps of an exponential warm-up of the decay, which is ema_decay * (1 - exp(-step / ema_warmup)), as
            of YOLOX (2107.08430) with 2000; null for min(ema_decay, step / (9 + step)).
        precision: what the network computes in; losses are float32 always.
        compile: run the network through torch.compile.
        channels_last: keep images and weights in torch's channels_last layout.
        device: where to train; auto takes a GPU if there is one.
        eval_every: steps between evaluations, 0 for only one at the end.
        val_loss: also compute the loss on the validation images at every evaluation, by the losses of the training as
            they are then: that of a step whose batch is like the mean of those images. Logged as val/loss and its
            terms; the training is not changed by it.
        checkpoint_every: steps between checkpoints, 0 for only one at the end.
        keep_last: checkpoints kept besides the best.
        log_every: steps between plain log lines.
        threads: CPU threads; null for torch's choice.
        deterministic: give the same weights whenever the same run is repeated on the same machine.
        max_minutes: minutes of training after which the run ends early, with everything that comes at the end; null
            for no limit.
        tensorboard: deprecated, use `loggers`: false removes TensorBoard from them, true adds it; null leaves them as
            they are.
        pad_together: give all images of a step one size, over micro-batches and processes, as one batch would.
        lr_scaling: rule by which `optimizer.lr` grows with the batch size: in proportion, or with its root.
        lr_batch_size: images of the step that `optimizer.lr` is meant for; null without `lr_scaling`.
        gradient_compression: bf16 halves what processes send each other, and rounds.
        hang_timeout: seconds without progress after which a process counts as hung, prints where it is and ends; null
            for never.
        parallel: ddp keeps the complete model in every process; fsdp divides parameters and optimizer state among them,
            for a model that is too large.
    """

    iterations: PositiveInt
    accumulate: PositiveInt = 1
    clip_norm: Positive | None = None
    ema_decay: OpenFraction | None = None
    ema_warmup: Positive | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    channels_last: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    eval_every: NonNegativeInt = 0
    val_loss: bool = False
    checkpoint_every: NonNegativeInt = 500
    keep_last: PositiveInt = 2
    log_every: PositiveInt = 20
    threads: PositiveInt | None = None
    deterministic: bool = True
    max_minutes: Positive | None = None
    tensorboard: bool | None = None
    pad_together: bool = True
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    lr_batch_size: PositiveInt | None = None
    gradient_compression: Literal["none", "bf16"] = "none"
    hang_timeout: Positive | None = 300.0
    parallel: Literal["ddp", "fsdp"] = "ddp"

    def __post_init__(self) -> None:
        if (self.lr_scaling == "none") != (self.lr_batch_size is None):
            raise ValueError(
                f"train.lr_scaling: {self.lr_scaling} with train.lr_batch_size {self.lr_batch_size}: a rule needs the "
                "batch size that optimizer.lr is meant for, and that size needs a rule"
            )
        if self.ema_warmup is not None and self.ema_decay is None:
            raise ValueError(
                f"train.ema_warmup: {self.ema_warmup:g} without train.ema_decay warms up nothing: set train.ema_decay, "
                "or remove train.ema_warmup"
            )
        if self.parallel == "fsdp" and (self.precision == "fp16" or self.compile):
            other = "train.compile" if self.compile else "train.precision: fp16"
            raise ValueError(f"train.parallel: fsdp does not go with {other}; use ddp, or bf16 without compile")

    def lr_factor(self, batch_size: int) -> float:
        """The factor on `optimizer.lr` for steps of `batch_size` images."""
        if self.lr_batch_size is None:
            return 1.0
        ratio = batch_size / self.lr_batch_size
        return ratio if self.lr_scaling == "linear" else ratio**0.5
