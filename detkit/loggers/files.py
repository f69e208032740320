"""Loggers that write plain files into the run folder."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO

from detkit.loggers.base import LoggedRun, Logger, Status
from detkit.registry import LOGGERS
from detkit.runs.folder import SCALARS_CSV, SCALARS_JSONL, STATUS, write_json
from detkit.runs.metrics import format_record, records_until
from detkit.utils.outputs import replacing
from detkit.utils.types import Tree


@LOGGERS.register()
class CSV(Logger):
    """A table `scalars.csv` in the run folder: a row for each step that something was logged for, a column a name."""

    def __init__(self) -> None:
        self.path, self.names = Path(), ["step"]
        self.rows: list[dict[str, str]] = []

    def start(self, run: LoggedRun) -> None:
        self.path = run.claim(run.folder / SCALARS_CSV)
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.names = list(reader.fieldnames or ["step"])
                self.rows = [row for row in reader if int(row["step"]) <= run.step]
        self.write_all()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": str(step), **{name: repr(float(value)) for name, value in values.items()}}
        new = [name for name in row if name not in self.names]
        self.names += new
        if self.rows and self.rows[-1]["step"] == row["step"]:
            self.rows[-1] |= row
            self.replace_last()
        else:
            self.rows.append(row)
            self.append(self.rows[-1:])
        if new:
            self.write_all()

    def write_all(self) -> None:
        """The whole table, in place all at once."""
        with replacing(self.path) as file:
            file.write(self.text([dict(zip(self.names, self.names, strict=True)), *self.rows]).encode())

    def append(self, rows: Iterable[Mapping[str, str]]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(self.text(rows))

    def replace_last(self) -> None:
        """Writes the last row again, which got more columns."""
        with self.path.open("rb+") as file:
            before = file.read().rstrip(b"\n").rpartition(b"\n")[0]
            file.truncate(len(before) + 1)
        self.append(self.rows[-1:])

    def text(self, rows: Iterable[Mapping[str, str]]) -> str:
        """Lines of the table."""
        lines = io.StringIO(newline="")
        csv.DictWriter(lines, self.names, restval="", lineterminator="\n").writerows(rows)
        return lines.getvalue()


@LOGGERS.register()
class JSONL(Logger):
    """Lines `{"step": 20, "train/loss": 1.5, ...}` in `scalars.jsonl` of the run folder, one for each call.

    `metrics.jsonl`, which is always there, has every step; this file has what the other loggers get: means.
    """

    def __init__(self) -> None:
        self.file: IO[str] | None = None

    def start(self, run: LoggedRun) -> None:
        path = run.claim(run.folder / SCALARS_JSONL)
        kept = records_until(path, run.step)
        with replacing(path) as file:
            file.write("".join(map(format_record, kept)).encode())
        self.file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        assert self.file is not None
        self.file.write(format_record({"step": step, **values}))
        self.file.flush()

    def finish(self, status: Status) -> None:
        if self.file is not None:
            self.file.close()


@LOGGERS.register()
class StatusFile(Logger):
    """`status.json` in the run folder, for programs that watch runs: state, step, time and the newest figures."""

    def __init__(self) -> None:
        self.content: Tree = {}
        self.path = Path()

    def start(self, run: LoggedRun) -> None:
        self.path = run.claim(run.folder / STATUS)
        self.content = {"state": "running", "step": run.step, "iterations": run.iterations, "process": os.getpid()}
        self.content["values"] = {}
        self.write()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.content["step"] = max(step, self.content["step"])
        self.content["values"] |= json.loads(format_record(values))
        self.write()

    def finish(self, status: Status) -> None:
        self.content["state"] = status
        self.write()

    def write(self) -> None:
        """All of it, in place all at once."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(self.path, self.content | {"time": now})
