"""Checkpoints: written completely or not at all, verified when read, free of pickled code.

A file is what `torch.save` writes, followed by a line with the SHA-256 of everything before it.
`torch.load` doesn't look behind the end of its archive, so the file opens with plain torch as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from detkit.hub import local_path
from detkit.structures import ClassMap
from detkit.utils.errors import find_disk_full
from detkit.utils.exit_codes import ExitCode
from detkit.utils.outputs import file_sha256
from detkit.utils.types import Tree
from detkit.version import __version__

log = logging.getLogger("detkit")

FORMAT, FORMAT_WITHOUT_HOOKS = 3, 2
"""The newest format that is read, and that of a checkpoint without states of hooks, which an older detkit reads too."""
CHECKPOINTS, BEST = "checkpoints", "best.pt"
STEP_NAME = re.compile(r"step_\d{8,}\.pt")
BEST_NAME = re.compile(r"best(_[a-z0-9_]+)?\.pt")
"""best.pt, and those that the hook BestCheckpoint keeps."""
HALF_WRITTEN = re.compile(r"(step_\d{8,}|best(_[a-z0-9_]+)?)\.pt\.\d+\.tmp")
TRAILER = re.compile(rb"\ndetkit-sha256 ([0-9a-f]{64})\n")
TRAILER_LENGTH = len("\ndetkit-sha256 \n") + 64


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or not to be used here."""


class DiskFullError(OSError):
    """A file of a run could not be written because the disk is full."""

    exit_code = ExitCode.DISK_FULL


@dataclass(kw_only=True)
class Checkpoint:
    """The state of a run after `step` optimizer steps.

    model, ema: state dicts; ema is the averaged weights. optimizer, scaler: state dicts, None in the best checkpoint,
    which can't be resumed from. seed: with `step`, the state of every random generator and the loader's position (see
    `train.random`). config: the effective one. data: hashes of the data sets; start: the code and machine of the
    process that wrote it (see `runs.starts`). hooks: states of the config's hooks by name. train_seconds: time spent
    in steps. best_ap: of all evaluations so far.
    """

    step: int
    seed: int
    model: dict[str, Tensor]
    config: Tree
    classes: ClassMap
    ema: dict[str, Tensor] | None = None
    optimizer: Tree | None = None
    scaler: Tree | None = None
    data: dict[str, str] = field(default_factory=dict)
    start: Tree = field(default_factory=dict)
    hooks: Tree = field(default_factory=dict)
    train_seconds: float = 0.0
    images_seen: int = 0
    best_ap: float | None = None
    ap: float | None = None
    version: str = ""
    path: Path | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the averaged ones, if the run kept some."""
        return self.model if self.ema is None else self.ema


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Writes to a temporary file, waits for the disk, then renames: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content: Tree = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name != "path"}
    content |= {"format": FORMAT, "classes": asdict(checkpoint.classes), "version": __version__}
    if not content["hooks"]:
        del content["hooks"]
        content["format"] = FORMAT_WITHOUT_HOOKS
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        # torch.save forgets why a write failed if it opens the file itself.
        with temporary.open("wb") as file:
            torch.save(content, file)
        with temporary.open("ab") as file:
            file.write(f"\ndetkit-sha256 {file_sha256(temporary)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if full := as_full_disk(error, path, size_of(content)):
            raise full from error
        raise
    return path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """One file -> its checkpoint, on the CPU. Raises CheckpointError if it isn't what was written."""
    path = Path(path)
    try:
        verify(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    version = content.pop("format")
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, written by detkit {content.get('version')}; "
            f"detkit {__version__} reads up to format {FORMAT}: use the newer detkit"
        )
    classes = content.pop("classes")
    return Checkpoint(**content, classes=ClassMap(tuple(classes["names"]), tuple(classes["ids"])), path=path)


def verify(path: Path) -> None:
    """Raises CheckpointError unless the file ends in the SHA-256 of what comes before it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - TRAILER_LENGTH, 0))
        match = TRAILER.fullmatch(file.read())
        if match is None:
            raise CheckpointError(
                f"{path} is not a complete detkit checkpoint ({size} bytes, no checksum at its end): truncated, or "
                "written by another program (`detkit convert` reads weights of others)"
            )
        file.seek(0)
        digest, left = hashlib.sha256(), size - TRAILER_LENGTH
        while block := file.read(min(1 << 20, left)):
            digest.update(block)
            left -= len(block)
        if digest.hexdigest() != match[1].decode():
            raise CheckpointError(f"{path} is damaged: checksum mismatch")


def load_checkpoint(path: str | Path, prefer: Literal["best", "newest"] = "best") -> Checkpoint:
    """A file or a run folder, or its address: its best checkpoint, the newest if none was evaluated.

    prefer: "newest" takes the newest in any case. A damaged file in a run folder is passed over with a
    warning, a file given by name is refused.
    """
    path = local_path(path)
    if path.is_file():
        return read_checkpoint(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint or run folder {path}")
    candidates = saved_steps(path)
    best = (path if path.name == CHECKPOINTS else path / CHECKPOINTS) / BEST
    if prefer == "best" and best.is_file():
        candidates.insert(0, best)
    for candidate in candidates:
        try:
            return read_checkpoint(candidate)
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
    found = f"none of its {len(candidates)} checkpoints is intact" if candidates else "it holds no checkpoint"
    raise CheckpointError(f"nothing to load from {path}: {found}")


def step_path(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run folder."""
    return run / CHECKPOINTS / f"step_{step:08d}.pt"


def saved_steps(run: Path) -> list[Path]:
    """Checkpoint files of a run folder, newest first, unchecked; the best one is not among them."""
    folder = run if run.name == CHECKPOINTS else run / CHECKPOINTS
    return sorted((path for path in folder.glob("step_*.pt") if STEP_NAME.fullmatch(path.name)), reverse=True)


def remove_old(run: Path, keep: int, step: int | None = None) -> None:
    """Deletes all but the `keep` newest, and what a killed writer left behind.

    step: of the one that was just written. Files of later steps were damaged, or the run would have gone on
    from them: they don't count among the kept, or a good one would go in favour of a damaged one.
    """
    saved = [path for path in saved_steps(run) if step is None or path.name <= step_path(run, step).name]
    left = [path for path in (run / CHECKPOINTS).glob("*.tmp") if HALF_WRITTEN.fullmatch(path.name)]
    for path in [*saved[keep:], *left]:
        path.unlink(missing_ok=True)


def as_full_disk(error: BaseException, path: Path, needed: int | None = None) -> DiskFullError | None:
    """An error that a full disk caused, in words; None for others. path: the file, or the run folder."""
    if isinstance(error, DiskFullError) or (full := find_disk_full(error)) is None:
        return error if isinstance(error, DiskFullError) else None
    folder = next(folder for folder in (path, *path.parents) if folder.is_dir())
    size = f" ({needed / 2**20:.1f} MiB)" if needed else ""
    good = last_good(folder)
    return DiskFullError(
        f"{path}{size} can't be written: {os.strerror(full.errno or 0)}. Free on that file system: "
        f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB\n"
        f"last good checkpoint: {good or 'none yet'}\n"
        "Make room (train.keep_last says how many checkpoints are kept), then "
        + ("resume with --resume" if good else "start again with --overwrite")
    )


def last_good(folder: Path) -> Path | None:
    """The newest checkpoint of a run folder, or of its folder of checkpoints, that is intact."""
    for path in saved_steps(folder):
        with contextlib.suppress(CheckpointError, OSError):
            verify(path)
            return path
    return None


def size_of(content: object) -> int:
    """Bytes of the tensors in nested dicts and lists."""
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, (list, tuple)) else 0


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power failure."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
