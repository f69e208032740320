"""metrics.jsonl: one JSON object a line, `{"step", "loss", ...}` of a step or `{"step", "eval"}` of an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from detkit.utils.outputs import write_text
from detkit.utils.types import Tree, Value


def read_metrics(path: str | Path) -> tuple[list[Tree], list[Tree]]:
    """Steps and evaluations of a run, each by step; an evaluation is its figures and `step`.

    Of lines about the same step, the last counts. Raises ValueError for a damaged line, see `read_records`.
    """
    steps: dict[int, Tree] = {}
    evaluations: dict[int, Tree] = {}
    for record in read_records(Path(path)):
        step = int(record["step"])
        if "eval" in record:
            evaluations[step] = record["eval"] | {"step": step}
        else:
            steps[step] = record
    return [steps[step] for step in sorted(steps)], [evaluations[step] for step in sorted(evaluations)]


def read_records(path: Path) -> Iterator[Tree]:
    """The objects of all lines.

    A last line that is not one was cut off when the run was killed, and is left out. Any other such line raises
    ValueError with its number.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            int(record["step"])
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                return
            raise ValueError(f"{path}, line {number} is damaged: {line[:40]!r}; delete it, then resume") from None
        yield record


class MetricsFile:
    """Writes metrics.jsonl; every line is on disk as soon as it is written.

    Opened at `step`, lines of later steps (of a run that was killed after its last checkpoint) are dropped, so every
    step is in the file once.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = [record for record in (read_records(path) if path.exists() else []) if record["step"] <= step]
        write_text(path, "".join(map(format_record, kept)))
        self._written = {_key(record) for record in kept}
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Value]) -> None:
        """Appends a line, unless one of its kind and step is in the file. Numbers that are not finite become null."""
        if _key(record) in self._written:
            return
        self._written.add(_key(record))
        self._file.write(format_record(record))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def format_record(record: Mapping[str, Value]) -> str:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(clean) + "\n"


def _key(record: Mapping[str, Value]) -> tuple[int, bool]:
    return int(record["step"]), "eval" in record
