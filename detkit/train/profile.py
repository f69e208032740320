"""`detkit train --profile`: a trace of a few steps."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch

from detkit.hooks.base import Hook, StepReport
from detkit.train.trainer import Trainer

log = logging.getLogger("detkit")

WARM_UP = 5
ROWS = 15


class Profile(Hook[Trainer]):
    """Records `steps` steps after the first five; the trace opens in https://ui.perfetto.dev or chrome://tracing.

    Each process writes `profile_rank<rank>.json` into the run folder; the first one prints the operations that
    took longest. Comes first in the list of hooks, so that a step's record ends with the step.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"--profile: {steps} steps; it takes one at least")
        self.folder, self.steps = folder, steps
        self.path: Path | None = None

    def before_train(self, trainer: Trainer) -> None:
        from torch import profiler

        activities = [profiler.ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(profiler.ProfilerActivity.CUDA)
        self._profiler = profiler.profile(
            activities=activities,
            # The last step of the warm-up is recorded and thrown away, for the recorder needs one itself.
            schedule=profiler.schedule(wait=WARM_UP - 1, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=partial(self._write, trainer),
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.start()

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        self._profiler.step()

    def after_train(self, trainer: Trainer) -> None:
        self._profiler.stop()  # writes the record of a run that was shorter than asked for
        if self.path is None:
            log.warning("--profile: the run ended within its first %d steps, which are not recorded", WARM_UP)

    def _write(self, trainer: Trainer, profiler: torch.profiler.profile) -> None:
        self.path = self.folder / f"profile_rank{trainer.rank}.json"
        profiler.export_chrome_trace(str(self.path))
        order = f"self_{trainer.device.type}_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=50)
        log.info("profile of %d steps: %s, for https://ui.perfetto.dev\n%s", self.steps, self.path, table)
