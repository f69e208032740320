"""The training loop. Letters: M micro-batches of a step."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from detkit.detectors.dense import DenseDetector
from detkit.distributed import comm
from detkit.distributed.progress import Progress
from detkit.hooks.base import Hook, StepReport, named
from detkit.structures import Batch, Losses, Predictions
from detkit.train.ema import Ema
from detkit.train.hook_access import HookAccess
from detkit.train.non_finite import NonFiniteLossError, describe_non_finite, describe_terms
from detkit.train.options import TrainOptions
from detkit.train.parallel import check_gradients, largest_image, pad_to, wrap_forward
from detkit.train.precision import computing_in
from detkit.train.random import seed_everything
from detkit.train.schedule import Schedule
from detkit.train.sharded import local_shard, shard
from detkit.train.sums import Layout, relative, row_of

log = logging.getLogger("detkit")

MAX_SKIPPED = 30
"""fp16 steps skipped in a row, each halving the loss scale, after which the run counts as diverged."""


class Trainer(HookAccess):
    """Trains a detector; `run()` is the loop, `train_step()` one turn of it.

    batches: endless, M = options.accumulate for each step. step: steps done. stop: a hook or a signal sets it to the
    reason why this process should end after the step in progress. signal: number of the signal among these reasons,
    else 0. interrupted: all ranks know of a signal that one of them got, so what follows training is left out.
    last_checkpoint: the last one from which training went well, named when the run fails. progress: where the
    loop is, for the watchdog. model: the weights to evaluate and predict with.
    """

    def __init__(
        self,
        detector: DenseDetector,
        batches: Iterator[Batch],
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        options: TrainOptions,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        hooks: Sequence[Hook[Any]] = (),
    ) -> None:
        self.detector, self.batches, self.optimizer, self.schedule = detector, batches, optimizer, schedule
        self.options, self.seed, self.device, self.hooks = options, seed, torch.device(device), hooks
        self.rank, self.world_size = comm.rank(), comm.world_size()
        self.ema = Ema(detector, options.ema_decay, warmup=options.ema_warmup) if options.ema_decay else None
        self.sharded = options.parallel == "fsdp" and self.world_size > 1
        self.draws_numbers = self.world_size > 1 and check_gradients(detector, self.device)
        if self.sharded:
            shard(detector, self.ema.module if self.ema else None, optimizer, options, self.device)
        self.forward = wrap_forward(detector, options, self.world_size)
        # Sums make larger gradients than means, so the scale starts lower than torch's 2^16.
        self.scaler = GradScaler(self.device.type, init_scale=2.0**12, enabled=options.precision == "fp16")
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.step, self.train_seconds, self.images_seen = 0, 0.0, 0
        self.progress = Progress()
        self.stop: str | None = None
        self.interrupted, self.signal = False, 0
        self.last_checkpoint: Path | None = None
        self._skipped_in_a_row, self._some_rank_stops = 0, False

    @property
    def model(self) -> DenseDetector:
        """The averaged detector where there is one, else the detector."""
        return self.ema.module if self.ema else self.detector

    def run(self) -> None:
        """Trains until `options.iterations` steps are done or a rank has a reason to stop."""
        self.notify("before_train")
        while self.step < self.options.iterations and not self.stopping():
            report = self.train_step()
            self.notify("after_step", report)
        self.agree_on_stop()
        self.notify("after_train")
        self.agree_on_stop()  # on a signal that came during the last hooks

    def notify(self, moment: str, *arguments: object) -> None:
        """Calls a method of all hooks, in their order."""
        for hook in self.hooks:
            with named(hook, moment, self.step):
                getattr(hook, moment)(self, *arguments)

    def train_step(self) -> StepReport:
        """One optimizer step over M micro-batches.

        Losses are sums; the gradient is divided once, by the normaliser of all micro-batches and all
        processes, so M batches of n images give the gradient of one batch of M * n.
        """
        started = time.perf_counter()
        seed_everything(self.seed, self.step, self.rank)
        lr = self.set_learning_rate()
        self.detector.train()
        self.notify("before_step")
        layout, rows, micro, waited, divisors = self.accumulate_gradients()
        self.notify("after_backward")
        accumulated = [x.to(rows) for x in self.detector.take_accumulated()]
        total = torch.cat([rows.sum(0), rows.new_full((1,), float(self.stop is not None)), *accumulated])
        self.progress.enter("all-reduce", self.step + 1)
        if self.world_size > 1:
            dist.all_reduce(total)
        width = rows.shape[1]
        self.detector.update_losses(torch.split(total[width + 1 :], [len(x) for x in accumulated]))
        if divisors is None:
            divisors = self.detector.divide(layout.numbers(total[:width]))
        by = torch.stack([divisors[name].double() for name in layout.shapes])
        self.scaler.unscale_(self.optimizer)
        norm = scale_and_clip(self.parameters, self.world_size / by[0], self.options.clip_norm, self.sharded)
        # The one time in a step that the host waits for the device.
        host = torch.cat([total[: width + 1], by, norm.view(1), rows.view(-1)]).tolist()
        sums, stopping_ranks, gradient_norm = host[: len(layout.terms)], host[width], host[width + 1 + len(by)]
        divided = dict(zip(layout.shapes, host[width + 1 :], strict=False))
        terms = {name: x / divided[layout.divided_by[name]] for name, x in zip(layout.terms, sums, strict=True)}
        self._some_rank_stops = stopping_ranks > 0
        report = StepReport(
            step=self.step + 1,
            loss=sum(sums) / divided[next(iter(divided))] if len(divided) == 1 else sum(terms.values()),
            terms=terms,
            normalizer=divided[next(iter(divided))],
            gradient_norm=gradient_norm,
            lr=lr,
            images=sum(map(len, micro)) * self.world_size,
            data_seconds=waited,
            skipped=self.scaler.is_enabled() and not math.isfinite(gradient_norm),
        )
        self.check_finite(report, micro, layout, host[width + 2 + len(by) :])
        if not report.skipped:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.detector)
        self.step += 1
        self.images_seen += report.images
        self.train_seconds += time.perf_counter() - started
        return report

    def accumulate_gradients(self) -> tuple[Layout, Tensor, list[Batch], float, dict[str, Tensor] | None]:
        """Adds up the gradients of M micro-batches.

        Returns what the numbers of a row are, (M, W) rows, the batches, the seconds spent waiting for them, and the
        divisors if there are several: then all terms were scaled so that they may be divided by the first.
        """
        self.progress.enter("data", self.step + 1)
        asked = time.perf_counter()
        micro = [next(self.batches) for _ in range(self.options.accumulate)]
        waited = time.perf_counter() - asked
        micro = self.transformed(micro)
        size = None
        if self.options.pad_together and self.world_size * len(micro) > 1:
            self.progress.enter("all-reduce", self.step + 1)
            size = largest_image(micro, self.device, self.world_size)
        self.detector.progress = self.step / self.options.iterations
        several = len(self.detector.divisors) > 1
        divisors = self.divisors_of(self.first_pass(micro, size)) if several and len(micro) > 1 else None
        rows = []
        for i, batch in enumerate(micro):
            with self.gradients_shared(i == self.options.accumulate - 1):
                self.progress.enter("forward", self.step + 1)
                losses = self.losses(batch, size)
                if several and divisors is None:
                    divisors = self.divisors_of([losses])
                self.progress.enter("backward", self.step + 1)
                total = losses.total(None if divisors is None else relative(divisors))
                self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            rows.append(row_of(losses))
        return Layout.of(losses), torch.stack(rows), micro, waited, divisors

    def first_pass(self, micro: list[Batch], size: tuple[int, int] | None) -> list[Losses]:
        """The losses of micro-batches without gradients, which leaves everything as it was.

        Where terms have divisors of their own, these must be known before the first backward pass.
        """
        self.progress.enter("forward", self.step + 1)
        buffers = {name: buffer.clone() for name, buffer in self.detector.named_buffers()}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            done = [self.losses(batch, size) for batch in micro]
        for name, buffer in self.detector.named_buffers():
            buffer.copy_(buffers[name])
        self.detector.take_accumulated()
        return done

    def divisors_of(self, losses: list[Losses]) -> dict[str, Tensor]:
        """The divisors of a step, from all its micro-batches on this rank."""
        total = torch.stack([row_of(x) for x in losses]).sum(0)
        self.progress.enter("all-reduce", self.step + 1)
        if self.world_size > 1:
            dist.all_reduce(total)
        return self.detector.divide(Layout.of(losses[0]).numbers(total))

    def transformed(self, micro: list[Batch]) -> list[Batch]:
        """The micro-batches as the hooks that transform batches want them; as they are if there is none."""
        for hook in (h for h in self.hooks if type(h).transform_batch is not Hook.transform_batch):
            with named(hook, "transform_batch", self.step):
                micro = [hook.transform_batch(self, batch.to(self.device)) for batch in micro]
        return micro

    def losses(self, batch: Batch, size: tuple[int, int] | None = None) -> Losses:
        """Forward pass and loss of a micro-batch; only the network runs in the lower precision.

        size: (height, width) that the images are padded to.
        """
        batch = batch.to(self.device)
        images = batch.images if size is None else pad_to(batch.images, size)
        if self.options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with computing_in(self.options.precision, self.device):
            pred: Predictions = self.forward(images, batch.sizes)
        return self.detector.loss(pred, batch.targets)

    def stopping(self) -> bool:
        """Whether to end now; with several processes, once a step has carried the news to all of them."""
        return self._some_rank_stops if self.world_size > 1 else self.stop is not None

    def stop_everywhere(self, reason: str) -> None:
        """Ends the training after the step in progress, on the promise that every rank calls this in it."""
        self.stop, self._some_rank_stops = self.stop or reason, True

    def agree_on_stop(self) -> None:
        """A signal that one process got interrupts all of them, or none: what comes next they do together.

        A signal that comes later is for the next time that this is called.
        """
        number = self.signal
        if self.world_size > 1:
            self.progress.enter("all-reduce", self.step)
            highest = torch.tensor(number, device=self.device)
            dist.all_reduce(highest, op=dist.ReduceOp.MAX)
            number = int(highest)
        if number > 0:
            self.signal, self.interrupted = number, True
            self.stop = self.stop or f"{signal.Signals(number).name} (sent to another process)"

    def set_learning_rate(self) -> float:
        """Sets every group's rate for the coming step; returns that of the first group."""
        factor = self.schedule.factor(self.step, self.options.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def gradients_shared(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Lets processes exchange gradients in the last micro-batch of a step only."""
        context: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.sharded:
            self.forward.set_requires_gradient_sync(last)
        elif self.world_size > 1 and not last:
            context = self.forward.no_sync()
        return context

    def check_finite(self, report: StepReport, micro: list[Batch], layout: Layout, own: list[float]) -> None:
        """Raises NonFiniteLossError unless losses and gradient are finite; fp16 may skip some steps."""
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if report.skipped else 0
        overflow = report.skipped and self._skipped_in_a_row < MAX_SKIPPED
        if math.isfinite(report.loss) and (math.isfinite(report.gradient_norm) or overflow):
            return
        # All processes come here: what is not finite in one of them is so in the sums and the norm of all.
        self.progress.enter("all-reduce", report.step)
        ranks = comm.all_gather(describe_terms(micro, layout, own))
        text = describe_non_finite(report.step, report.lr, report.gradient_norm, ranks, self.last_checkpoint)
        raise NonFiniteLossError(text)


def scale_and_clip(parameters: list[Tensor], factor: Tensor, clip_norm: float | None, sharded: bool = False) -> Tensor:
    """Multiplies all gradients in place by `factor` and, beyond `clip_norm`, by clip_norm / norm.

    sharded: each process has a part of every gradient, and the norm is that of all parts together. Returns the norm
    after scaling and before clipping, a double scalar on the device.
    """
    gradients = [local_shard(p.grad) for p in parameters if p.grad is not None]
    if not gradients:
        return factor.new_zeros(())
    norm = nn.utils.get_total_norm(gradients).double()
    if sharded:
        squares = norm.square()
        dist.all_reduce(squares)
        norm = squares.sqrt()
    norm = norm * factor
    if clip_norm is not None:
        factor = factor * (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
    return norm
