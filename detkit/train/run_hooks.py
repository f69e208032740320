"""The hooks of a run: evaluation, checkpoints, the time limit, signals."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from detkit.checkpoint import BEST, CHECKPOINTS, Checkpoint, remove_old, save_checkpoint, step_path
from detkit.data.loader import SampleError
from detkit.evaluate.coco import CocoResult
from detkit.hooks.base import Hook, StepReport, hook_states, load_hook_states
from detkit.runs.metrics import of_validation
from detkit.structures import ClassMap
from detkit.train.parallel import share_buffers
from detkit.train.recorder import Recorder
from detkit.train.sharded import full_state, load_full_optimizer_state, load_full_state, unsharded
from detkit.train.trainer import Trainer
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

NAMES = {"AP": "ap", "AP50": "ap50", "AP75": "ap75"}


class Evaluation(Hook[Trainer]):
    """Evaluates every `train.eval_every` steps and at the end; `result` belongs to the weights after `step`.

    An evaluation that fails because of its data (a file that became unreadable) does not end the training: `failed`
    holds the reason, and `result` is None. failed_last: the last evaluation of a run raised an error of any kind.
    """

    def __init__(self, evaluate: Callable[[Trainer], CocoResult], recorder: Recorder | None) -> None:
        self.evaluate, self.recorder = evaluate, recorder
        self.result: CocoResult | None = None
        self.step = -1
        self.failed: str | None = None
        self.failed_last = False

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        every = trainer.options.eval_every
        if every and report.step % every == 0 and report.step < trainer.options.iterations:
            self.run(trainer)

    def after_train(self, trainer: Trainer) -> None:
        """Evaluates unless a signal ended the training."""
        if trainer.interrupted or self.step == trainer.step:
            return
        try:
            self.run(trainer)
        except Exception as error:
            self.failed, self.failed_last = f"{type(error).__name__}: {error}", True
            raise

    def run(self, trainer: Trainer) -> None:
        trainer.progress.enter("evaluation", trainer.step)
        share_buffers(trainer.model)
        try:
            with unsharded(trainer.model):
                result = self.evaluate(trainer)
        except SampleError as error:
            log.error("step %d: the evaluation failed: %s", trainer.step, error)
            self.step, self.result, self.failed = trainer.step, None, str(error)
            return
        self.step, self.result, self.failed = trainer.step, result, None
        if self.recorder is not None:
            self.recorder.evaluation(self.step, result)
        shown = {name: result.metrics[key] for name, key in NAMES.items()}
        figures = "  ".join(f"{name} {'n/a' if value is None else f'{value:.3f}'}" for name, value in shown.items())
        figures += f"  loss {result.losses['loss']:.3f}" if result.losses else ""
        log.info("step %d: val %s", self.step, figures)
        trainer.notify("after_evaluation", of_validation({**result.metrics, **result.losses}))

    def ap(self, trainer: Trainer) -> float | None:
        """The AP of the trainer's present weights, None if they were not evaluated."""
        return self.result.ap if self.result is not None and self.step == trainer.step else None


class BeforeEvaluation(Hook[Trainer]):
    """Writes the last checkpoint before the last evaluation, so that no evaluation can cost a training its weights.

    Comes before `Evaluation` in the list of hooks.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def after_train(self, trainer: Trainer) -> None:
        self.checkpoints.save_once(trainer)


class Checkpoints(Hook[Trainer]):
    """Writes a checkpoint every `train.checkpoint_every` steps, at the end and at an interruption, and keeps the best.

    Comes after `Evaluation` and the hooks of the config in the list of hooks, so that a checkpoint knows the AP of its
    own weights, and the states of those hooks after its step.
    """

    def __init__(
        self,
        folder: Path,
        config: Tree,
        classes: ClassMap,
        evaluation: Evaluation | None = None,
        *,
        data: dict[str, str] | None = None,
        start: Tree | None = None,
    ) -> None:
        self.folder, self.config, self.classes, self.evaluation = folder, config, classes, evaluation
        self.data, self.start = data or {}, start or {}
        self.best_ap: float | None = None
        self._saved = -1
        self._saved_step_lacks_ap = False
        self._written: Path | None = None

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        # Only a step that went well from its weights shows that the checkpoint before it is good.
        trainer.last_checkpoint = self._written
        self.keep_best(trainer)
        every = trainer.options.checkpoint_every
        if every and report.step % every == 0:
            self.save(trainer)

    def after_train(self, trainer: Trainer) -> None:
        self.keep_best(trainer)
        if self._saved_step_lacks_ap and self.evaluation is not None and self.evaluation.result is not None:
            self.save(trainer)
        self.save_once(trainer)

    def save_once(self, trainer: Trainer) -> None:
        """Saves unless the checkpoint of this step exists."""
        if self._saved != trainer.step:
            self.save(trainer)
        trainer.last_checkpoint = self._written

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint on rank 0; the other ranks lend it their shards of a sharded model."""
        trainer.progress.enter("checkpoint", trainer.step)
        if trainer.rank == 0 or trainer.sharded:
            checkpoint = self.capture(trainer)
            checkpoint.optimizer = full_state(trainer.optimizer.state_dict())
            checkpoint.scaler = trainer.scaler.state_dict()
            checkpoint.hooks = hook_states(trainer.hooks)
        if trainer.rank == 0:
            self._written = save_checkpoint(step_path(self.folder, trainer.step), checkpoint)
            remove_old(self.folder, trainer.options.keep_last, trainer.step)
        self._saved = trainer.step
        self._saved_step_lacks_ap = self.evaluation is not None and self.evaluation.step != trainer.step

    def keep_best(self, trainer: Trainer) -> None:
        """Writes best.pt, without the optimizer, if the evaluation of this step is the best so far."""
        ap = self.evaluation.ap(trainer) if self.evaluation else None
        if ap is not None and (self.best_ap is None or ap > self.best_ap):
            self.best_ap = ap
            self.save_weights(trainer, BEST.removesuffix(".pt"))

    def save_weights(self, trainer: Trainer, name: str) -> Path:
        """Writes the present weights to `checkpoints/<name>.pt`, without the optimizer; all ranks together."""
        checkpoint = self.capture(trainer) if trainer.rank == 0 or trainer.sharded else None
        path = self.folder / CHECKPOINTS / f"{name}.pt"
        if trainer.rank == 0 and checkpoint is not None:
            save_checkpoint(path, checkpoint)
        return path

    def capture(self, trainer: Trainer) -> Checkpoint:
        """Weights and counters as they are now."""
        return Checkpoint(
            step=trainer.step,
            seed=trainer.seed,
            model=full_state(trainer.detector.state_dict()),
            ema=full_state(trainer.ema.module.state_dict()) if trainer.ema else None,
            config=self.config,
            classes=self.classes,
            data=self.data,
            start=self.start,
            train_seconds=trainer.train_seconds,
            images_seen=trainer.images_seen,
            best_ap=self.best_ap,
            ap=self.evaluation.ap(trainer) if self.evaluation else None,
        )

    def restore(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """Puts the trainer where the checkpoint was; its loader must start at the same step."""
        if checkpoint.optimizer is None or checkpoint.scaler is None:
            raise ValueError(f"{checkpoint.path} holds weights only: use it with --init-from")
        load_full_state(trainer.detector, checkpoint.model)
        load_full_optimizer_state(trainer.optimizer, checkpoint.optimizer)
        trainer.scaler.load_state_dict(checkpoint.scaler)
        if trainer.ema and checkpoint.ema is not None:
            load_full_state(trainer.ema.module, checkpoint.ema)
            trainer.ema.updates = checkpoint.step
        trainer.step, trainer.train_seconds = checkpoint.step, checkpoint.train_seconds
        trainer.images_seen, self._written = checkpoint.images_seen, checkpoint.path
        self.best_ap, self._saved = checkpoint.best_ap, checkpoint.step
        self._saved_step_lacks_ap = checkpoint.ap is None
        load_hook_states(trainer.hooks, checkpoint.hooks)


class TimeLimit(Hook[Trainer]):
    """Ends training after `train.max_minutes` of it, evaluations not counted."""

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        limit = trainer.options.max_minutes
        if limit is not None and trainer.stop is None and trainer.train_seconds >= 60 * limit:
            trainer.stop = f"reached train.max_minutes={limit:g} after step {report.step}/{trainer.options.iterations}"


SAME_REQUEST = 5.0
"""Seconds in which another SIGTERM is the same request: a scheduler sends one to every process of a job, and the
launcher hands on its own."""


@contextlib.contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """While the context is active, SIGINT and SIGTERM end the run after the step in progress; a second one at once."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    requested_at: list[float] = []

    def restore_handlers() -> None:
        for s, handler in before.items():
            signal.signal(s, handler)

    def on_signal(number: int, _: object) -> None:
        if not requested_at:
            requested_at.append(time.monotonic())
            trainer.stop, trainer.signal = signal.Signals(number).name, number
        elif number == signal.SIGINT or time.monotonic() - requested_at[0] > SAME_REQUEST:
            restore_handlers()
            os.kill(os.getpid(), number)

    for s in before:
        signal.signal(s, on_signal)
    try:
        yield
    finally:
        restore_handlers()
