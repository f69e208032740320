"""`detkit train --profile`: a trace of a few steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkit.train.trainer import Hook, StepReport

if TYPE_CHECKING:
    from detkit.train.trainer import Trainer

log = logging.getLogger("detkit")

WARM_UP = 5
ROWS = 15


class Profile(Hook):
    """Records `steps` steps after the first five; the trace opens in https://ui.perfetto.dev or chrome://tracing.

    Each process writes `profile_rank<rank>.json` into the run folder; the first one prints the operations that
    took longest. Comes first in the list of hooks, so that a step's record ends with the step.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"--profile: {steps} steps; it takes one at least")
        self.folder, self.steps = folder, steps
        self.path: Path | None = None
        self._profiler: Any = None
        self._order, self._rank = "", 0

    def before_train(self, trainer: Trainer) -> None:
        """Sets the profiler up; nothing is recorded before the warm-up is over."""
        from torch import profiler

        activities = [profiler.ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(profiler.ProfilerActivity.CUDA)
        self._order = f"self_{trainer.device.type}_time_total"
        self._rank = trainer.rank
        self._profiler = profiler.profile(
            activities=activities,
            # The last step of the warm-up is recorded and thrown away, for the recorder needs one itself.
            schedule=profiler.schedule(wait=WARM_UP - 1, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.start()

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Ends the step in the record."""
        if self._profiler is not None:
            self._profiler.step()
            if self.path is not None:
                self._close()

    def after_train(self, trainer: Trainer) -> None:
        """Ends the record of a run that was shorter than asked for."""
        if self._profiler is not None:
            self._close()
        if self.path is None:
            log.warning("--profile: the run ended within its first %d steps, which are not recorded", WARM_UP)

    def _close(self) -> None:
        self._profiler.stop()
        self._profiler = None

    def _write(self, profiler: Any) -> None:
        if self.path is not None:
            return
        self.path = self.folder / f"profile_rank{self._rank}.json"
        profiler.export_chrome_trace(str(self.path))
        table = profiler.key_averages().table(sort_by=self._order, row_limit=ROWS, max_name_column_width=50)
        log.info("profile of %d steps: %s, for https://ui.perfetto.dev\n%s", self.steps, self.path, table)
