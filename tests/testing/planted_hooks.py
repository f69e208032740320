"""Faults against the contracts of hooks and loggers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.testing.planted import fault


def double_on_rank_1(self: Any, original: Any, trainer: Any) -> None:
    original(trainer)
    if trainer.rank == 1:
        for p in trainer.detector.parameters():
            p.grad *= 2


def brighten_by_count(self: Any, original: Any, trainer: Any, batch: Any) -> Any:
    return replace(batch, images=(batch.images // 2 + len(batch)).to(torch.uint8))


def draw_after_step(self: Any, original: Any, *given: Any) -> None:
    original(*given)
    torch.rand(1)


def stumble(self: Any, original: Any, *given: Any) -> None:
    raise KeyError("loss")


def refuse_infinity(self: Any, original: Any, step: int, values: Any) -> None:
    round(values.get("train/loss", 0.0))
    original(step, values)


def refuse_a_resume(self: Any, original: Any, run: Any) -> None:
    if (run.folder / "kept.txt").exists():
        raise FileExistsError("kept.txt")
    original(run)


def draw_at_start(self: Any, original: Any, run: Any) -> None:
    original(run)
    torch.rand(1)


FAULTS = [
    fault("hooks", "runs_a_training", "a training of 8 steps raises HookError: .*KeyError: 'loss'", after_step=stumble),
    fault(
        "hooks",
        "state_fits_a_checkpoint",
        "a checkpoint raises ValueError: .*'steps'.* is a set",
        state_dict=lambda self, original: {"steps": {self.steps}},
        also=("resumed_run_is_the_same",),
    ),
    fault(
        "hooks",
        "resumed_run_is_the_same",
        "the weights at the end differ",
        state_dict=lambda self, original: {},
    ),
    fault(
        "hooks",
        "draws_no_global_numbers",
        "after_step moved the state of torch's generator",
        after_step=draw_after_step,
    ),
    fault(
        "hooks",
        "decides_alike_on_every_rank",
        "the weights of ranks 0 and 1 differ",
        after_backward=double_on_rank_1,
    ),
    fault(
        "hooks",
        "batch_may_be_divided",
        "image 0 is another alone than in a batch of 4",
        transform_batch=brighten_by_count,
    ),
    fault("hooks", "changes_nothing_if_it_says_so", "the weights are others than without it", changes_training=False),
    fault("loggers", "takes_a_run", "a run raises KeyError: 'loss'", log=stumble),
    fault("loggers", "takes_what_may_come", "an infinite loss raises OverflowError", log=refuse_infinity),
    fault("loggers", "takes_a_resumed_run", "a resumed run raises FileExistsError: kept.txt", start=refuse_a_resume),
    fault("loggers", "draws_no_numbers", "it moved the state of torch's generator", start=draw_at_start),
]
