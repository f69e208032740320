"""Progress of a run: metrics.jsonl, TensorBoard, a progress bar or plain lines, a log file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from detkit.evaluate.coco import CocoResult
from detkit.evaluate.report import to_json
from detkit.runs.environment import peak_memory_mb
from detkit.runs.folder import METRICS, TENSORBOARD, note_growing
from detkit.runs.metrics import MetricsFile
from detkit.train.speed import SpeedWindow
from detkit.train.trainer import Hook, StepReport, Trainer
from detkit.utils.console import bar_stream, guard_stream
from detkit.utils.types import Tree

log = logging.getLogger("detkit")


class Recorder(Hook):
    """Writes every step into metrics.jsonl; shows a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bar: Any = None
        self._board: Any = None
        self._file: MetricsFile | None = None

    def before_train(self, trainer: Trainer) -> None:
        self._file = MetricsFile(self.folder / METRICS, trainer.step)
        self._window = SpeedWindow(trainer.train_seconds)
        if trainer.options.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            events = self.folder / TENSORBOARD
            before = set(events.glob("*"))
            self._board = SummaryWriter(str(events), purge_step=trainer.step + 1)
            note_growing(self.folder, set(events.glob("*")) - before)
        if guard_stream(sys.stderr).isatty():
            from tqdm import tqdm

            steps: Tree = {"initial": trainer.step, "total": trainer.options.iterations, "unit": "step"}
            self._bar = tqdm(file=bar_stream(), dynamic_ncols=True, smoothing=0.05, **steps)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        assert self._file is not None
        seconds = self._window.add(report, trainer.train_seconds)
        self._file.write(
            {
                "step": report.step,
                "loss": report.loss,
                "loss_classification": report.classification,
                "loss_box": report.box,
                "lr": report.lr,
                "gradient_norm": report.gradient_norm,
                "normalizer": report.normalizer,
                "images": report.images,
                "seconds": round(seconds, 5),
                "data_seconds": round(report.data_seconds, 5),
                "train_seconds": round(trainer.train_seconds, 3),
                "peak_memory_mb": peak_memory_mb(trainer.device),
                **({"skipped": True} if report.skipped else {}),
            }
        )
        if self._bar is not None:
            speed = self._window.speed().images_per_second
            self._bar.set_postfix_str(
                f"loss {report.loss:.3f} (class {report.classification:.3f}, box {report.box:.3f}), "
                f"lr {report.lr:.2e}, {speed:.1f} images/s",
                refresh=False,
            )
            self._bar.update()
        if report.step % trainer.options.log_every == 0 or report.step == trainer.options.iterations:
            self._flush(trainer)

    def evaluation(self, step: int, result: CocoResult) -> None:
        """Records what an evaluation after `step` gave."""
        assert self._file is not None
        self._file.write({"step": step, "eval": to_json(result)})
        if self._board is not None:
            for name, value in result.metrics.items():
                if value is not None:
                    self._board.add_scalar(f"val/{name}", value, step)
            self._board.flush()

    def close(self) -> None:
        """Ends the bar and closes the files; safe to call at any time."""
        for open_thing in (self._bar, self._board, self._file):
            if open_thing is not None:
                open_thing.close()
        self._bar = self._board = self._file = None

    def after_train(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.close()  # the files stay open for the final evaluation
            self._bar = None

    def _flush(self, trainer: Trainer) -> None:
        """The means since the last line, into the log and TensorBoard."""
        window, speed = self._window.reports, self._window.speed()
        n, last, seconds = len(window), window[-1], sum(self._window.seconds)
        self._window.clear()
        names = ("loss", "classification", "box")
        loss, classification, box = (sum(getattr(r, name) for r in window) / n for name in names)
        left = (trainer.options.iterations - last.step) * seconds / n
        line = (
            f"step {last.step}/{trainer.options.iterations}  loss {loss:.4f}  class {classification:.4f}  "
            f"box {box:.4f}  lr {last.lr:.3g}  norm {last.gradient_norm:.2f}  {speed}  "
            f"peak memory {peak_memory_mb(trainer.device):.0f} MB  ETA {int(left) // 60}:{int(left) % 60:02d}"
        )
        skipped = sum(r.skipped for r in window)
        line += f"  fp16 steps skipped {skipped}" if skipped else ""
        # The bar shows all this already, so on a terminal the line goes to the file alone.
        log.info(line, extra={"only_file": self._bar is not None})
        if self._board is not None:
            values = {
                "loss/total": loss, "loss/classification": classification, "loss/box": box, "lr": last.lr,
                "gradient_norm": last.gradient_norm, "images_per_second": speed.images_per_second,
                "data_share": speed.data_share, "step_seconds/p50": speed.p50, "step_seconds/p95": speed.p95,
            }  # fmt: skip
            for name, value in values.items():
                self._board.add_scalar(name, value, last.step)
