"""A logger: takes the figures of a run somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detkit.loggers.base import LoggedRun, Logger, Status
from detkit.registry import LOGGERS, PositiveInt


@LOGGERS.register()
class MyLogger(Logger):
    """Writes figures into a text file of the run folder, a line each.

    Args:
        digits: of a figure.
    """

    # The arguments are the keys of the config. The constructor only stores them: it runs whenever a config is read.
    def __init__(self, *, digits: PositiveInt = 4) -> None:
        self.digits = digits
        self.path = Path()

    # Change from here. It runs on the first process only; what raises is reported once, and the training goes on.
    def start(self, run: LoggedRun) -> None:
        """Once. In a resumed run `run.step` is above 0, and figures of later steps come again."""
        self.path = run.claim(run.folder / "my_logger.txt")  # notes that it is not a file of yours
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if int(line.split()[0]) <= run.step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures by name, as train/loss, lr, val/ap."""
        with self.path.open("a", encoding="utf-8") as file:
            for name, value in values.items():
                file.write(f"{step} {name} {value:.{self.digits}g}\n")

    def log_image(self, step: int, name: str, path: Path) -> None:
        """A PNG, as of the hook VisualizePredictions."""

    def finish(self, status: Status) -> None:
        """Once: finished, stopped or failed."""
