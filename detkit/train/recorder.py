"""What a run records and shows while it goes: metrics.jsonl, its loggers, a progress bar or plain lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detkit.evaluate.coco import CocoResult
from detkit.evaluate.report import to_json
from detkit.hooks.base import Hook, StepReport
from detkit.loggers.base import LoggedRun, Loggers, Status
from detkit.runs.environment import peak_memory_mb
from detkit.runs.folder import METRICS
from detkit.runs.metrics import DATA_TIME, LOSS, STEP_TIME, TERM, TRAIN_TIME, MetricsFile, of_validation
from detkit.train.speed import SpeedWindow
from detkit.train.trainer import Trainer
from detkit.utils.console import bar_stream, guard_stream
from detkit.utils.types import Tree

log = logging.getLogger("detkit")


class Recorder(Hook[Trainer]):
    """Writes every step into metrics.jsonl and means into the loggers; shows a live bar, or plain lines.

    config: complete, for the loggers.
    """

    def __init__(self, folder: Path, loggers: Loggers | None = None, config: Tree | None = None) -> None:
        self.folder, self.loggers, self.config = folder, loggers or Loggers(), config or {}
        self._bar: Any = None
        self._file: MetricsFile | None = None

    def before_train(self, trainer: Trainer) -> None:
        self._file = MetricsFile(self.folder / METRICS, trainer.step)
        self._window = SpeedWindow(trainer.train_seconds)
        iterations = trainer.options.iterations
        run = LoggedRun(folder=self.folder, step=trainer.step, iterations=iterations, config=self.config)
        self.loggers.start(run)
        if guard_stream(sys.stderr).isatty():
            from tqdm import tqdm

            steps: Tree = {"initial": trainer.step, "total": iterations, "unit": "step"}
            self._bar = tqdm(file=bar_stream(), dynamic_ncols=True, smoothing=0.05, **steps)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        assert self._file is not None
        seconds = self._window.add(report, trainer.train_seconds)
        self._file.write(
            {
                "step": report.step,
                LOSS: report.loss,
                **{f"{TERM}{name}": value for name, value in report.terms.items()},
                "lr": report.lr,
                "train/gradient_norm": report.gradient_norm,
                "train/normalizer": report.normalizer,
                "train/images": report.images,
                STEP_TIME: round(seconds, 5),
                DATA_TIME: round(report.data_seconds, 5),
                TRAIN_TIME: round(trainer.train_seconds, 3),
                "memory/peak_mb": peak_memory_mb(trainer.device),
                **({"train/skipped": True} if report.skipped else {}),
            }
        )
        if self._bar is not None:
            speed = self._window.speed().images_per_second
            self._bar.set_postfix_str(
                f"loss {report.loss:.3f} ({', '.join(f'{short(n)} {x:.3f}' for n, x in report.terms.items())}), "
                f"lr {report.lr:.2e}, {speed:.1f} images/s",
                refresh=False,
            )
            self._bar.update()
        if report.step % trainer.options.log_every == 0 or report.step == trainer.options.iterations:
            self._flush(trainer)

    def evaluation(self, step: int, result: CocoResult) -> None:
        """Records what an evaluation after `step` gave."""
        assert self._file is not None
        self._file.write({"step": step, **of_validation({**to_json(result), **result.losses})})
        known = of_validation({**result.metrics, **result.losses})
        figures = {name: value for name, value in known.items() if value is not None}
        self.loggers.log(step, figures)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Records figures of a hook."""
        assert self._file is not None
        self._file.write({"step": step, **values})
        self.loggers.log(step, values)

    def close(self, status: Status = "finished") -> None:
        """Ends the bar and the loggers and closes the file; safe to call at any time."""
        self.loggers.finish(status)
        for open_thing in (self._bar, self._file):
            if open_thing is not None:
                open_thing.close()
        self._bar = self._file = None

    def after_train(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.close()  # the files stay open for the final evaluation
            self._bar = None

    def _flush(self, trainer: Trainer) -> None:
        """The means since the last line, into the log and the loggers."""
        window, speed = self._window.reports, self._window.speed()
        n, last, seconds = len(window), window[-1], sum(self._window.seconds)
        self._window.clear()
        loss = sum(r.loss for r in window) / n
        terms = {name: sum(r.terms[name] for r in window) / n for name in last.terms}
        left, memory = (trainer.options.iterations - last.step) * seconds / n, peak_memory_mb(trainer.device)
        line = (
            f"step {last.step}/{trainer.options.iterations}  loss {loss:.4f}  "
            f"{'  '.join(f'{short(name)} {value:.4f}' for name, value in terms.items())}  "
            f"lr {last.lr:.3g}  norm {last.gradient_norm:.2f}  {speed}  "
            f"peak memory {memory:.0f} MB  ETA {int(left) // 60}:{int(left) % 60:02d}"
        )
        skipped = sum(r.skipped for r in window)
        line += f"  fp16 steps skipped {skipped}" if skipped else ""
        # The bar shows all this already, so on a terminal the line goes to the file alone.
        log.info(line, extra={"only_file": self._bar is not None})
        values = {
            LOSS: loss, **{f"{TERM}{name}": value for name, value in terms.items()}, "lr": last.lr,
            "train/gradient_norm": last.gradient_norm, "train/images_per_second": speed.images_per_second,
            STEP_TIME: speed.p50, "time/step_p95": speed.p95, "time/data_share": speed.data_share,
            "memory/peak_mb": memory,
        }  # fmt: skip
        self.loggers.log(last.step, values)


def short(term: str) -> str:
    """The name of a term on a line that has little room."""
    return "class" if term == "classification" else term
