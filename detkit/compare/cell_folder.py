"""The folder of one run of the loss bench: file names, status, damage."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from detkit.compare.launchers import CONSOLE
from detkit.evaluate.arrays import Shard
from detkit.runs.folder import CONFIG, ENVIRONMENT, METRICS, RESULT
from detkit.train.non_finite import NonFiniteLossError
from detkit.utils.types import Value

START, CELL = "start.json", "cell.json"
DETECTIONS, MATCHES, DIAGNOSIS = "detections.npz", "matches.npz", "diagnosis.json"
HASHED_FILES = (CONFIG, ENVIRONMENT, START, METRICS, RESULT, DETECTIONS, MATCHES, DIAGNOSIS)

FINISHED, DIVERGED, FAILED, MISSING = "finished", "diverged", "failed", "missing"
ENDED = (FINISHED, DIVERGED)
STATUS_OF_EXIT_CODE = {0: FINISHED, NonFiniteLossError.exit_code: DIVERGED}

UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
"""Exceptions that reading a damaged JSON or NPZ file raises."""


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
        return f"{folder / name} is not there" if isinstance(error, FileNotFoundError) else f"{folder / name}: {error}"
    return None


def read_detections(folder: Path) -> Shard:
    """The detections of a finished run."""
    with np.load(folder / DETECTIONS) as arrays:
        return Shard(*(arrays[name] for name in Shard._fields))


def ended_status(folder: Path) -> str | None:
    """`finished` or `diverged`; None if the run has not ended, or must run again as a file is damaged."""
    if not (folder / CELL).exists() or damage(folder):
        return None
    return str(read_json(folder / CELL)["status"])


def console_tail(folder: Path, lines: int = 12) -> str:
    """The last lines that a run printed."""
    path = folder / CONSOLE
    if not path.is_file():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
