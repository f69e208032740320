"""The folder of one run of the loss bench: file names, state, damage."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from detkit.compare.launchers import CONSOLE
from detkit.compare.plan import Cell
from detkit.evaluate.arrays import Shard
from detkit.runs.folder import CONFIG, ENVIRONMENT, METRICS, RESULT

FINISHED, DIVERGED_RUN = "finished", "diverged"


def is_json(path: Path) -> bool:
    """Whether a file is there and can be read."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def damage(folder: Path) -> str | None:
    """Which file of a run that ended is not there or can't be read, and why; None if all is well.

    matches.npz is left out, as it can be made anew; diagnosis.json may be missing, as no verdict needs it.
    """
    name = CELL
    try:
        status = json.loads((folder / CELL).read_text(encoding="utf-8"))["status"]
        for name in (START, RESULT) if status == FINISHED else (START,):
            json.loads((folder / name).read_text(encoding="utf-8"))
        name = DIAGNOSIS
        if (folder / name).exists():
            json.loads((folder / name).read_text(encoding="utf-8"))
        if status == FINISHED:
            name = DETECTIONS
            with np.load(folder / name) as arrays:
                for field in Shard._fields:
                    arrays[field]
    except UNREADABLE as error:
        return f"{folder / name} is not there" if isinstance(error, FileNotFoundError) else f"{folder / name}: {error}"
    return None


UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged JSON or NPZ file raises."""


def state(cell: Cell) -> str | None:
    """`finished` or `diverged`; None if the run is still to be made, or made again as a file of it is damaged."""
    if not (cell.folder / CELL).exists() or damage(cell.folder):
        return None
    return str(json.loads((cell.folder / CELL).read_text(encoding="utf-8"))["status"])


def last_words(folder: Path, lines: int = 12) -> str:
    """The end of what a run printed."""
    path = folder / CONSOLE
    if not path.is_file():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


START, CELL = "start.json", "cell.json"

DETECTIONS, MATCHES, DIAGNOSIS = "detections.npz", "matches.npz", "diagnosis.json"

EVIDENCE = (CONFIG, ENVIRONMENT, START, METRICS, RESULT, DETECTIONS, MATCHES, DIAGNOSIS)
