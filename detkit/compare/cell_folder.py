"""The folder of one run of the loss bench: file names, status, damage, content."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detkit.compare.launchers import CONSOLE
from detkit.compare.plan import Cell, RunKey
from detkit.compare.provenance import Provenance, read_provenance
from detkit.config import Config
from detkit.evaluate.arrays import Shard
from detkit.evaluate.report import METRIC_NAMES
from detkit.runs.folder import CONFIG, ENVIRONMENT, METRICS, RESULT
from detkit.runs.metrics import BOX_LOSS, CLASS_LOSS, LOSS, read_metrics
from detkit.utils.exit_codes import ExitCode
from detkit.utils.types import Tree, Value

START, CELL = "start.json", "cell.json"
DETECTIONS, MATCHES, DIAGNOSIS = "detections.npz", "matches.npz", "diagnosis.json"
HASHED_FILES = (CONFIG, ENVIRONMENT, START, METRICS, RESULT, DETECTIONS, MATCHES, DIAGNOSIS)

FINISHED, DIVERGED, FAILED, MISSING = "finished", "diverged", "failed", "missing"
ENDED = (FINISHED, DIVERGED)
STATUS_OF_EXIT_CODE: dict[int, str] = {ExitCode.FINISHED: FINISHED, ExitCode.DIVERGED: DIVERGED}

UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
"""Exceptions that reading a damaged JSON or NPZ file raises."""
CURVE_POINTS = 100


def read_json(path: Path) -> Value:
    """Content of a JSON file; None if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def damage(folder: Path) -> str | None:
    """Names the first file of an ended run that is missing or unreadable, and why; None for an intact run.

    matches.npz is left out, as it can be recomputed; diagnosis.json may be missing, as no verdict needs it.
    """
    name = CELL
    try:
        status = json.loads((folder / CELL).read_text(encoding="utf-8"))["status"]
        for name in (START, RESULT) if status == FINISHED else (START,):
            json.loads((folder / name).read_text(encoding="utf-8"))
        name = DIAGNOSIS
        read_json(folder / name)
        if status == FINISHED:
            name = DETECTIONS
            read_detections(folder)
    except UNREADABLE as error:
        return f"{folder / name} is missing" if isinstance(error, FileNotFoundError) else f"{folder / name}: {error}"
    return None


def read_detections(folder: Path) -> Shard:
    with np.load(folder / DETECTIONS) as arrays:
        return Shard(*(arrays[name] for name in Shard._fields))


def ended_status(folder: Path) -> str | None:
    """`finished` or `diverged`; None if the run has not ended, or must run again as a file is damaged."""
    if not (folder / CELL).exists() or damage(folder):
        return None
    return str(read_json(folder / CELL)["status"])


def console_tail(folder: Path, lines: int = 12) -> str:
    path = folder / CONSOLE
    if not path.is_file():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class RunRecord:
    """One run of a bench.

    status: finished, diverged, failed or missing. start: start.json. end: cell.json. result: result.json, empty unless
    the run finished. provenance: None unless it ended; detections: None unless it finished.
    """

    cell: Cell
    status: str
    error: str | None
    start: Tree | None
    end: Tree | None
    result: Tree
    provenance: Provenance | None
    detections: Shard | None

    @property
    def folder(self) -> Path:
        return self.cell.folder

    def to_json(self) -> Tree:
        """An entry of "cells" in results.json."""
        curve, evaluations = read_curves(self.folder / METRICS)
        return {
            "seed": self.cell.seed,
            "status": self.status,
            "error": self.error,
            "metrics": {key: self.result.get(key) for key in METRIC_NAMES} if self.result else {},
            "per_class": {name: values["ap"] for name, values in self.result.get("per_class", {}).items()},
            "curve": curve,
            "evals": evaluations,
            "cost": (self.end or {}).get("cost") or {},
            "step0": self.start["step0"] if self.start else None,
            "steps": self.result.get("step"),
        }


def read_run(cell: Cell) -> RunRecord:
    folder = cell.folder
    damaged = damage(folder) if (folder / CELL).exists() else None
    start, end = (None, None) if damaged else (read_json(folder / START), read_json(folder / CELL))
    if damaged:
        status, error = FAILED, f"{damaged}; rerun the bench to make this run again"
    elif end is not None:
        status, error = end["status"], end["error"]
    elif (folder / CONSOLE).exists():
        status, error = FAILED, console_tail(folder)
    else:
        status, error = MISSING, None
    finished = status == FINISHED
    return RunRecord(
        cell, status, error, start, end,
        result=(read_json(folder / RESULT) or {}) if finished else {},
        provenance=read_provenance(folder) if status in ENDED else None,
        detections=read_detections(folder) if finished else None,
    )  # fmt: skip


def read_configs(runs: Mapping[RunKey, RunRecord]) -> dict[RunKey, Tree | str]:
    """The config that each finished run was made with, or the reason why it is unknown."""
    configs: dict[RunKey, Tree | str] = {}
    completed: dict[str, Tree] = {}  # runs of a variant differ in their seed alone
    for key, run in runs.items():
        if run.status != FINISHED:
            continue
        path = run.folder / CONFIG
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
            seed = plain.pop("seed", 0)
            text = json.dumps(plain, sort_keys=True)
            if text not in completed:
                completed[text] = Config.from_dict(plain, name=str(path)).to_dict()
            configs[key] = completed[text] | {"seed": seed}
        except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            configs[key] = str(error)
    return configs


def read_curves(path: Path) -> tuple[dict[str, list[Value]], list[Tree]]:
    """Loss curves, averaged to at most `CURVE_POINTS` points, and the evaluations, of a metrics.jsonl."""
    try:
        steps, evaluations = read_metrics(path)
    except (FileNotFoundError, ValueError):
        steps, evaluations = [], []
    evaluations = [
        {"step": entry["step"], **{key: entry[f"val/{key}"] for key in ("ap", "ap50", "ap75")}}
        for entry in evaluations
        if "val/ap" in entry
    ]
    steps = [entry for entry in steps if LOSS in entry]
    size = max(1, -(-len(steps) // CURVE_POINTS))
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    curve: dict[str, list[Value]] = {"step": [group[-1]["step"] for group in groups]}
    for key, name in (("loss", LOSS), ("loss_classification", CLASS_LOSS), ("loss_box", BOX_LOSS)):
        # None: the loss was not finite, or a joint loss has other terms.
        values: list[list[Any]] = [[entry.get(name) for entry in group] for group in groups]
        curve[key] = [None if None in each else round(sum(each) / len(each), 5) for each in values]
    return curve, evaluations
