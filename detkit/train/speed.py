"""How fast steps are and where the time goes: for log lines, metrics.jsonl and result.json."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detkit.hooks.base import Hook, StepReport
from detkit.runs.environment import peak_memory_mb
from detkit.runs.metrics import DATA_TIME, STEP_TIME
from detkit.train.trainer import Trainer
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

WARM_UP = 3
"""First steps of a process, which build plans and caches, are not counted in a run's percentiles."""


class Speed(NamedTuple):
    """Speed over a number of steps.

    images_per_second: over all processes. data_share: of this process's time, spent waiting for data. p50, p95: median
    and 95th percentile of the seconds of a step.
    """

    images_per_second: float
    data_share: float
    p50: float
    p95: float

    def __str__(self) -> str:
        return (
            f"{self.images_per_second:.1f} images/s  step {self.p50:.3g} s (p95 {self.p95:.3g})  "
            f"waiting for data {self.data_share:.0%}"
        )


def measure(seconds: Sequence[float], waited: Sequence[float], images: Sequence[int]) -> Speed:
    """One entry a step in each: its seconds, those of them spent waiting, its images."""
    total = max(sum(seconds), 1e-9)
    p50, p95 = np.percentile(seconds, (50, 95), method="inverted_cdf").tolist() if len(seconds) else (0.0, 0.0)
    return Speed(sum(images) / total, min(sum(waited) / total, 1.0), p50, p95)


def speed_of_run(steps: Sequence[Tree]) -> Tree:
    """Figures of a complete run, resumed or not; warm-up left out where there are more steps.

    steps: the entries of metrics.jsonl.
    """
    rows = [row for row in steps if STEP_TIME in row]
    rows = rows[WARM_UP:] or rows
    speed = measure(*([row[name] for row in rows] for name in (STEP_TIME, DATA_TIME, "train/images")))
    percentiles = {"p50": round(speed.p50, 5), "p95": round(speed.p95, 5)}
    return {"data_share": round(speed.data_share, 4), "step_seconds": percentiles}


class SpeedWindow:
    """Collects steps until it is asked what they were like."""

    def __init__(self, train_seconds: float = 0.0) -> None:
        self.reports: list[StepReport] = []
        self.seconds: list[float] = []
        self._before = train_seconds

    def add(self, report: StepReport, train_seconds: float) -> float:
        """Adds a step; returns its seconds. train_seconds: of the trainer, after the step."""
        seconds, self._before = train_seconds - self._before, train_seconds
        self.reports.append(report)
        self.seconds.append(seconds)
        return seconds

    def speed(self) -> Speed:
        """The speed over the steps since `clear`."""
        reports = self.reports
        return measure(self.seconds, [r.data_seconds for r in reports], [r.images for r in reports])

    def clear(self) -> None:
        self.reports, self.seconds = [], []


class RankLog(Hook[Trainer]):
    """Speed and memory of a process other than the first, in its own log file, every `train.log_every` steps."""

    def before_train(self, trainer: Trainer) -> None:
        self._window = SpeedWindow(trainer.train_seconds)  # above 0 in a run that is resumed

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        self._window.add(report, trainer.train_seconds)
        total = trainer.options.iterations
        if report.step % trainer.options.log_every == 0 or report.step == total:
            speed, memory = self._window.speed(), peak_memory_mb(trainer.device)
            log.info("step %d/%d  %s  peak memory %.0f MB", report.step, total, speed, memory)
            self._window.clear()
