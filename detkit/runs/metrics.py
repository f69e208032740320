"""metrics.jsonl: one JSON object a line, `{"step", "train/loss", ...}` of a step or `{"step", "val/ap", ...}` of an
evaluation; hooks may add lines. Names are canonical: a room, then what it is. docs/hooks.md lists them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from detkit.utils.outputs import write_text
from detkit.utils.types import Tree, Value

LOSS, CLASS_LOSS, BOX_LOSS = "train/loss", "train/loss/classification", "train/loss/box"
TERM = "train/loss/"
"""And the name of the term."""
STEP_TIME, DATA_TIME, TRAIN_TIME = "time/step", "time/data", "time/train"
VALIDATION = "val/"
OLD_NAMES = {
    "loss": LOSS,
    "loss_classification": CLASS_LOSS,
    "loss_box": BOX_LOSS,
    "gradient_norm": "train/gradient_norm",
    "normalizer": "train/normalizer",
    "images": "train/images",
    "skipped": "train/skipped",
    "seconds": STEP_TIME,
    "data_seconds": DATA_TIME,
    "train_seconds": TRAIN_TIME,
    "peak_memory_mb": "memory/peak_mb",
}
"""Names in the files of an older detkit -> canonical ones. `step` and `lr` are the same; an evaluation was {"step",
"eval": figures}."""


def read_metrics(path: str | Path) -> tuple[list[Tree], list[Tree]]:
    """Steps and evaluations of a run, each by step, under canonical names, whichever detkit wrote the file.

    Of lines about the same step, the later one completes or replaces the earlier. Raises ValueError for a damaged line,
    see `read_records`.
    """
    steps: dict[int, Tree] = {}
    evaluations: dict[int, Tree] = {}
    for record in read_records(Path(path)):
        rows = evaluations if is_evaluation(record) else steps
        rows.setdefault(int(record["step"]), {}).update(record)
    return [steps[step] for step in sorted(steps)], [evaluations[step] for step in sorted(evaluations)]


def read_records(path: Path) -> Iterator[Tree]:
    """The objects of all lines, under canonical names.

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
        yield canonical(record)


def records_until(path: Path, step: int) -> list[Tree]:
    """The records of a run's file, if it exists, without those of later steps, which a resumed run makes again."""
    return [record for record in read_records(path) if record["step"] <= step] if path.exists() else []


def canonical(record: Mapping[str, Value]) -> Tree:
    """A record under canonical names; those of an older detkit are replaced."""
    figures = record.get("eval")
    if isinstance(figures, Mapping):
        return {"step": record["step"], **of_validation(figures)}
    return {OLD_NAMES.get(name, name): value for name, value in record.items()}


def of_validation(figures: Mapping[str, Value]) -> Tree:
    """Figures of an evaluation under their canonical names."""
    return {f"{VALIDATION}{name}": value for name, value in figures.items()}


def is_evaluation(record: Mapping[str, Value]) -> bool:
    """Whether a record is of validation and not of training."""
    return any(name.startswith(VALIDATION) for name in record)


class MetricsFile:
    """Writes metrics.jsonl; every line is on disk as soon as it is written.

    Opened at `step`, lines of later steps (of a run that was killed after its last checkpoint) are dropped, so every
    step is in the file once.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = records_until(path, step)
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


def _key(record: Mapping[str, Value]) -> tuple[int, str]:
    """Step and kind: the training step, its evaluation, or what a hook records under certain names."""
    for name in (LOSS, "val/ap"):
        if name in record:
            return int(record["step"]), name
    return int(record["step"]), " ".join(sorted(record))
