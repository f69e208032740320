"""Contracts of hooks and loggers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from detkit.data.seeding import generator_states
from detkit.hooks.base import Hook, StepReport, check_plain
from detkit.loggers.base import LoggedRun, Logger
from detkit.structures import Batch
from detkit.testing.contract import Contract, Subject, expect, must_not_raise
from detkit.testing.toy_training import IMAGES, STEPS, ToyRun, toy_batch
from detkit.train.trainer import Trainer

HALF = STEPS // 2
check_hook = Contract("hooks", "hook")
check_logger = Contract("loggers", "logger")


@contextmanager
def moved_generators() -> Iterator[list[str]]:
    """A list that names, after the context, the global generators which what runs inside has moved."""
    moved: list[str] = []
    before = generator_states()
    yield moved
    moved += [name for name, state in generator_states().items() if state != before[name]]


class Watched(Hook[Trainer]):
    """Another hook. draws: (method, generator) for each call in which it moved a global generator."""

    def __init__(self, hook: Hook[Any]) -> None:
        self.hook = hook
        self.draws: list[str] = []

    @contextmanager
    def watching(self, moment: str) -> Iterator[None]:
        with moved_generators() as moved:
            yield
        self.draws += [f"{moment} moved the state of {name}" for name in moved]

    def before_train(self, trainer: Trainer) -> None:
        with self.watching("before_train"):
            self.hook.before_train(trainer)

    def before_step(self, trainer: Trainer) -> None:
        with self.watching("before_step"):
            self.hook.before_step(trainer)

    def transform_batch(self, trainer: Trainer, batch: Batch) -> Batch:
        with self.watching("transform_batch"):
            return self.hook.transform_batch(trainer, batch)

    def after_backward(self, trainer: Trainer) -> None:
        with self.watching("after_backward"):
            self.hook.after_backward(trainer)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        with self.watching("after_step"):
            self.hook.after_step(trainer, report)

    def after_evaluation(self, trainer: Trainer, figures: Mapping[str, float | None]) -> None:
        with self.watching("after_evaluation"):
            self.hook.after_evaluation(trainer, figures)

    def after_train(self, trainer: Trainer) -> None:
        with self.watching("after_train"):
            self.hook.after_train(trainer)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="detkit-contract-") as name:
        yield Path(name)


@check_hook.check("a hook that raises ends the training.", vital=True)
def runs_a_training(s: Subject) -> None:
    with folder() as run, must_not_raise(f"a training of {STEPS} steps"):
        ToyRun(s.build(), run).run()


@check_hook.check("a run that was killed resumes from what its checkpoint holds.")
def state_fits_a_checkpoint(s: Subject) -> None:
    hook = s.build()
    with folder() as run:
        ToyRun(hook, run).run()
    with must_not_raise("a checkpoint"):
        check_plain(hook.state_dict())


@check_hook.check("a run that was killed and resumed must equal the one that was not.")
def resumed_run_is_the_same(s: Subject) -> None:
    with folder() as run, must_not_raise("a resumed run"):
        full = ToyRun(s.build(), run).run()
        first = ToyRun(s.build(), run).run(until=HALF)
        rest = ToyRun(s.build(), run, after=first).run()
    expect(rest.trainer.step == full.trainer.step, f"it ended after step {rest.trainer.step}, not {full.trainer.step}")
    expect(torch.equal(rest.weights(), full.weights()), "the weights at the end differ")
    logged = [entry for entry in full.logged if entry[0] > first.trainer.step]
    expect([e for e in rest.logged if e[0] > first.trainer.step] == logged, "it recorded other figures")


@check_hook.check("a draw from a global generator changes what comes after it, as dropout: draw by `step_random`.")
def draws_no_global_numbers(s: Subject) -> None:
    hook = Watched(s.build())
    with folder() as run:
        ToyRun(hook, run).run()
    expect(not hook.draws, ", ".join(dict.fromkeys(hook.draws)))


@check_hook.check("ranks that decide differently wait for each other for ever, or drift apart.")
def decides_alike_on_every_rank(s: Subject) -> None:
    with folder() as run:
        first, second = (ToyRun(s.build(), run, rank=rank).run() for rank in (0, 1))
    ends = first.trainer.step, second.trainer.step
    expect(ends[0] == ends[1], f"rank 0 ended after step {ends[0]}, rank 1 after step {ends[1]}")
    expect(torch.equal(first.weights(), second.weights()), "the weights of ranks 0 and 1 differ")


@check_hook.check("a step must be the same however it is divided into micro-batches and processes.")
def batch_may_be_divided(s: Subject) -> None:
    hook = s.build()
    with folder() as run:
        trainer = ToyRun(hook, run).run(until=1).trainer
        batch = toy_batch(1)
        full = hook.transform_batch(trainer, batch)
        for i in range(IMAGES):
            one = slice(i, i + 1)
            part = hook.transform_batch(
                trainer, replace(batch, images=batch.images[one], sizes=batch.sizes[one], targets=batch.targets[one])
            )
            height, width = part.sizes[0].tolist()
            same = torch.equal(part.sizes[0], full.sizes[i]) and torch.equal(
                part.images[0, :, :height, :width], full.images[i, :, :height, :width]
            )
            expect(same, f"image {i} is another alone than in a batch of {IMAGES}")
            expect(torch.equal(part.targets[0].boxes, full.targets[i].boxes), f"the boxes of image {i} are others")


@check_hook.check("a hook with changes_training = False may come and go at a resume.")
def changes_nothing_if_it_says_so(s: Subject) -> None:
    hook = s.build()
    if hook.changes_training:
        return
    with folder() as run:
        with_it = ToyRun(hook, run).run()
        end = with_it.trainer.step
        without = ToyRun(None, run).run(until=end) if end < STEPS else ToyRun(None, run).run()
    expect(torch.equal(with_it.weights(), without.weights()), "the weights are others than without it")


def logged_run(run: Path, step: int = 0) -> LoggedRun:
    """A run as a logger sees it."""
    config = {"seed": 0, "hooks": [], "optimizer": {"type": "SGD", "lr": 0.1}}
    return LoggedRun(folder=run, step=step, iterations=9, config=config)


def png(run: Path) -> Path:
    """A grey picture of 8 x 8 pixels."""
    path = run / "picture.png"
    Image.new("L", (8, 8), 128).save(path)
    return path


def log_some(logger: Logger, run: LoggedRun) -> None:
    """A short life of a logger."""
    logger.start(run)
    for step in range(run.step + 1, run.step + 4):
        logger.log(step, {"train/loss": 1.0 / step, "lr": 0.1})
    logger.log(run.step + 3, {"val/ap": 0.5, "val/ap50": 0.7})
    logger.log_image(run.step + 3, "val/predictions", png(run.folder))
    logger.finish("finished")


@check_logger.check("a logger that raises is dropped, and the rest of the run is missing in it.", vital=True)
def takes_a_run(s: Subject) -> None:
    with folder() as run, must_not_raise("a run"):
        log_some(s.build(), logged_run(run))


@check_logger.check("a loss may become infinite, and a run may end before anything was logged.")
def takes_what_may_come(s: Subject) -> None:
    with folder() as run, must_not_raise("an infinite loss"):
        logger = s.build()
        logger.start(logged_run(run))
        logger.log(1, {"train/loss": float("inf"), "train/loss/box": float("nan")})
        logger.finish("failed")
    with folder() as run, must_not_raise("a run without figures"):
        logger = s.build()
        logger.start(logged_run(run))
        logger.finish("stopped")


@check_logger.check("a run that was killed is resumed in its folder, and repeats some steps.")
def takes_a_resumed_run(s: Subject) -> None:
    with folder() as run, must_not_raise("a resumed run"):
        log_some(s.build(), logged_run(run))
        log_some(s.build(), logged_run(run, step=2))


@check_logger.check("a draw from a global generator changes what comes after it, as dropout.")
def draws_no_numbers(s: Subject) -> None:
    with folder() as run:
        logger = s.build()
        with moved_generators() as moved:
            log_some(logger, logged_run(run))
    expect(not moved, f"it moved the state of {' and '.join(moved)}")
