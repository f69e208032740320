"""Where log lines go: console and log file."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from detkit.runs.folder import LOG
from detkit.utils.console import CONTROLS, guard_stream

log = logging.getLogger("detkit")


class ConsoleHandler(logging.Handler):
    """Log lines on stdout (warnings on stderr), above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "only_file", False):
            return
        from tqdm import tqdm

        warning = record.levelno >= logging.WARNING
        prefix = f"{record.levelname.lower()}: " if warning else ""
        stream = guard_stream(sys.stderr if warning else sys.stdout)
        tqdm.write(prefix + record.getMessage(), file=stream)
        stream.flush()


def log_path(folder: Path, rank: int) -> Path:
    return folder / (LOG if rank == 0 else f"log_rank{rank}.txt")


class LogFile(logging.FileHandler):
    """A log file in UTF-8, control characters as escapes.

    A line that can't be written is left out: training continues, and its own files report the cause.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(CONTROLS)

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handleError(record)


@contextlib.contextmanager
def run_log(folder: Path, rank: int = 0) -> Iterator[None]:
    """Sends what detkit logs inside to the console and, with the time, to the run's log file.

    Ranks other than 0 have their own file, log_rank<rank>.txt, and no console.
    """
    file = LogFile(log_path(folder, rank))
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    others, level, propagate = log.handlers[:], log.level, log.propagate
    log.handlers, log.propagate = [file, *([ConsoleHandler()] if rank == 0 else [])], False
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    python_warnings = logging.getLogger("py.warnings")
    python_warnings.addHandler(file)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        python_warnings.removeHandler(file)
        log.handlers, log.propagate = others, propagate
        log.setLevel(level)
        file.close()
