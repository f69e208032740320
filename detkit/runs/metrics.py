"""metrics.jsonl: one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from detkit.utils.outputs import write_text

if TYPE_CHECKING:
    pass


class MetricsFile:
    """One JSON object a line, on disk as soon as written: `{"step", "loss", ...}` or `{"step", "eval"}`.

    Opened at `step`, lines of later steps (of a run that was killed after its last checkpoint) and a
    last line cut in half are dropped, so every step stands in the file once.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = list(_lines_until(path, step)) if path.exists() else []
        write_text(path, "".join(kept))
        self._written = {_key(json.loads(line)) for line in kept}
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Appends a line, unless its kind and step is there. Numbers that are not finite become null."""
        if _key(record) in self._written:
            return
        self._written.add(_key(record))
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing can be written afterwards."""
        self._file.close()


def _key(record: dict[str, Any]) -> tuple[int, bool]:
    return int(record["step"]), "eval" in record


def _lines_until(path: Path, step: int) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            return
        try:
            kept = json.loads(line)["step"] <= step
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}, line {number} is damaged: {line[:40]!r}; delete it, then resume") from None
        if kept:
            yield line
