"""The interface of loggers, and what keeps one that fails from ending the training."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from detkit.registry.source import raised_at
from detkit.runs.folder import LOGGER_NOTES, note_growing, write_json
from detkit.utils.outputs import Ledger
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

Status = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What a logger learns of the run.

    folder: the run folder. step: steps done, above 0 in a resumed run: what was logged for later steps is logged again.
    iterations: steps of the whole run. config: the complete config, as plain values.
    """

    folder: Path
    step: int
    iterations: int
    config: Tree

    def recall(self, name: str) -> str | None:
        """What an earlier start of this run gave to `remember`, as the id under which a service knows the run."""
        return self._notes().get(name)

    def remember(self, name: str, value: str) -> None:
        """Keeps a text in the run folder; a new run in the same folder begins without it."""
        write_json(self.folder / LOGGER_NOTES, self._notes() | {name: value})

    def claim(self, path: Path) -> Path:
        """Notes a file that the logger will write into the run folder as detkit's own; returns the path.

        Raises ValueError for a file that is there and not detkit's.
        """
        if path.exists() and path.relative_to(self.folder) not in Ledger(self.folder):
            raise ValueError(f"{path} is there, and detkit did not write it: move it")
        note_growing(self.folder, [path])
        return path

    def _notes(self) -> Tree:
        path = self.folder / LOGGER_NOTES
        notes: Tree = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return notes


class Logger:
    """Takes a run's figures somewhere. Runs on rank 0 only. A subclass overrides what it needs.

    The constructor stores its arguments and does nothing else: it runs whenever the config is read. What a logger
    raises later is reported once; the training goes on without it.

    requires: packages that it imports, with the extra of detkit that brings them, as in {"wandb": "wandb"}.
    """

    requires: ClassVar[Mapping[str, str]] = {}

    def start(self, run: LoggedRun) -> None:
        """Once, before the first step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step by canonical name, as `train/loss` (docs/hooks.md); a step may come more than once."""

    def log_image(self, step: int, name: str, path: Path) -> None:
        """A PNG."""

    def finish(self, status: Status) -> None:
        """Once, when the run has ended: `finished`, `stopped` by a signal, or `failed`."""


def check_installed(logger: Logger, place: str) -> None:
    """Raises ValueError that says what to install if a package which the logger requires is missing."""
    for package, extra in logger.requires.items():
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f'{place}: {type(logger).__name__} requires the package {package}: pip install "detkit[{extra}]"'
            )


class Loggers:
    """The loggers of a run: all get the same calls; one that raises is reported once and gets no more."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self.active = list(loggers)

    def start(self, run: LoggedRun) -> None:
        self._each("start", lambda logger: logger.start(run))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._each("log", lambda logger: logger.log(step, dict(values)))

    def log_image(self, step: int, name: str, path: Path) -> None:
        self._each("log_image", lambda logger: logger.log_image(step, name, path))

    def finish(self, status: Status) -> None:
        self._each("finish", lambda logger: logger.finish(status))
        self.active = []

    def _each(self, action: str, call: Callable[[Logger], None]) -> None:
        for logger in list(self.active):
            try:
                call(logger)
            except Exception as error:
                self.active.remove(logger)
                where = raised_at(type(logger), error)
                text = "the logger %s failed in %s and gets no more of this run: %s: %s%s"
                log.warning(text, type(logger).__name__, action, type(error).__name__, error, where)
