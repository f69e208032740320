"""What a run leaves on disk besides its checkpoints, and on which machine it ran."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detkit.checkpoint import BEST_NAME, CHECKPOINTS, HALF_WRITTEN, STEP_NAME, TRAILER, TRAILER_LENGTH
from detkit.utils import outputs
from detkit.utils.console import printable
from detkit.utils.errors import explain_os_errors
from detkit.utils.outputs import Ledger, check_can_write, foreign_files_error
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

CONFIG, ENVIRONMENT, RESULT = "config.yaml", "environment.json", "result.json"
METRICS, LOG = "metrics.jsonl", "log.txt"
CURVES, PREDICTIONS, TENSORBOARD = "curves.png", "predictions.png", "tensorboard"
PICTURES = "predictions"
"""Folder of the pictures that hooks draw."""
STATUS, LOGGER_NOTES, SCALARS_CSV, SCALARS_JSONL = "status.json", "loggers.json", "scalars.csv", "scalars.jsonl"
FOLDERS = (TENSORBOARD, CHECKPOINTS, PICTURES)
LOCK = ".lock"
LOCK_SECONDS = 20.0
"""Time for the processes of a killed run to end before the next one refuses the folder."""
EVIDENCE = (METRICS, RESULT, CHECKPOINTS)
WRITTEN_ONCE = (CONFIG, ENVIRONMENT, RESULT, CURVES, PREDICTIONS)
GROWING = (METRICS, LOG, "log_rank*.txt", "profile_rank*.json")
OF_LOGGERS = (STATUS, LOGGER_NOTES, SCALARS_CSV, SCALARS_JSONL)
"""Files that only some loggers write: where detkit did not, they are somebody's own and in nobody's way."""
EVENTS_NAME = re.compile(r"events\.out\.tfevents\..+")
"""Names that detkit and TensorBoard give: a copy that somebody calls step_00000100_good.pt is none of them."""
LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
METRICS_LINE = re.compile(rb'\{"step": \d+, ')
PICTURE_NAME = re.compile(r"step_\d{8,}\.png")


@contextlib.contextmanager
def lock_run_folder(folder: Path, *, wait: float = LOCK_SECONDS, restarted: bool = False) -> Iterator[None]:
    """Locks the run folder while the context is active; after `wait` seconds a ValueError names its holder.

    The system releases the lock when the process ends, however it ends. Where the file system has no locks nothing is
    refused; nor is a restart, as the lock of a machine that was lost stays with a file server for some time.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with explain_os_errors("--output", folder):
        check_can_write("--output", folder)
        folder.mkdir(parents=True, exist_ok=True)
        # lockf, not flock: a loader process that outlives its parent must not keep the lock.
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline, warned = time.monotonic() + wait, False
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN) or restarted:
                    break
            else:
                with contextlib.suppress(OSError):  # a full disk is reported where it matters
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                break
            owner = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            if time.monotonic() > deadline:
                way_out = "wait for its end, or choose another folder with --output"
                raise ValueError(f"{folder} is in use: {owner} trains in it; {way_out}")
            if not warned:
                log.warning("%s is in use by %s; waiting %.0f s for its end", folder, owner, wait)
                warned = True
            time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def init_run_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Creates the run folder. A run that is already in it is resumed or overwritten only by request.

    Deletes only what an earlier run of detkit wrote. Raises ForeignFileError that names the files in the way.
    """
    written = check_folder(folder, resume=resume, overwrite=overwrite)
    with explain_os_errors("--output", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if resume:
            Ledger(folder).adopt(path.name for path in written if path.name in WRITTEN_ONCE)
            note_growing(folder, [path for path in written if path.parent.name in (TENSORBOARD, PICTURES)])
        else:
            remove(folder, written)
        note_growing(folder, [folder / LOG])  # which says that a run has begun here


def note_growing(folder: Path, paths: Iterable[Path]) -> None:
    """Records files of the run that will still grow."""
    ledger = Ledger(folder)
    for path in paths:
        if path.relative_to(folder) not in ledger:
            ledger.note(path.relative_to(folder), "")


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> list[Path]:
    """The files of an earlier run in the folder; raises an error where a run can't be written. Changes nothing."""
    with explain_os_errors("--output", folder):
        check_can_write("--output", folder)
        if not (resume or overwrite):
            check_unused(folder)
        written, foreign = run_files(folder)
    if resume:
        foreign = [path for path in foreign if path.name != CONFIG]  # edited to be resumed: it stays as it is
    if foreign:
        raise foreign_files_error("--output", foreign)
    return written


def remove(folder: Path, files: Sequence[Path]) -> None:
    """Deletes files of a run, and its folders where nothing else is in them."""
    for path in files:
        path.unlink(missing_ok=True)
    Ledger(folder).forget([path.relative_to(folder) for path in files])
    for name in FOLDERS:
        with contextlib.suppress(OSError):  # not empty, or not there
            (folder / name).rmdir()


def run_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files under the names of a run's files: those that detkit wrote, and the others.

    Files that are written once are recognised by the folder's ledger, in a folder without one by their content; files
    that grow by their first line, checkpoints and event files by their names, but only in the folder of a run:
    other programs log in the same form and use the same names.
    """
    ledger = Ledger(folder)
    old = CONFIG not in ledger and any(names_detkit(folder / name) for name in (ENVIRONMENT, RESULT))
    of_run = old or CONFIG in ledger or LOG in ledger
    written: list[Path] = []
    foreign: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name in FOLDERS and path.is_dir():
            inside = sorted(path.iterdir())
            own_files = [p for p in inside if is_own_name(p, of_run=of_run)]
            if path.name != CHECKPOINTS and LOG in ledger:  # from then on they are noted
                own_files = [p for p in own_files if p.relative_to(folder) in ledger]
            written += own_files
            foreign += [p for p in inside if is_checkpoint_name(p) and p not in own_files]
        elif path.name in (TENSORBOARD, CHECKPOINTS):
            foreign.append(path)
        elif path.name in OF_LOGGERS and path.is_file():
            written += [path] if LOG in ledger and path.name in ledger else []
        elif any(path.match(name) for name in (*WRITTEN_ONCE, *GROWING)):
            own = path.is_file() and (
                ledger.owns(path.name) or (of_run and grew_here(path)) or (old and written_here(path))
            )
            (written if own else foreign).append(path)
    return written, foreign


def is_own_name(path: Path, *, of_run: bool) -> bool:
    """Whether a file in one of the run's folders is detkit's: a checkpoint by its last line, and in the folder of a
    run by the name that detkit or TensorBoard gives."""
    if path.is_dir():
        return False
    if is_checkpoint_name(path):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2 * TRAILER_LENGTH))
            if TRAILER.search(file.read()):
                return True
    names = {CHECKPOINTS: (STEP_NAME, HALF_WRITTEN), PICTURES: (PICTURE_NAME,)}.get(path.parent.name, (EVENTS_NAME,))
    return of_run and any(name.fullmatch(path.name) for name in names)


def is_checkpoint_name(path: Path) -> bool:
    """Whether a run would write a checkpoint under this name."""
    return path.parent.name == CHECKPOINTS and any(name.fullmatch(path.name) for name in (BEST_NAME, STEP_NAME))


def grew_here(path: Path) -> bool:
    """Whether a log, metrics or a profile begin as detkit writes them, or are empty."""
    with path.open("rb") as file:
        head = file.read(4096)
    if path.match("profile_rank*.json"):
        return b"schemaVersion" in head
    line = {".txt": LOG_LINE, ".jsonl": METRICS_LINE}.get(path.suffix)
    return line is not None and (not head or line.match(head) is not None)


def names_detkit(path: Path) -> bool:
    """Whether an environment or a result names the detkit that wrote it."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return "detkit" in json.loads(path.read_text(encoding="utf-8"))["versions"]
    return False


def written_here(path: Path) -> bool:
    """Whether a file of a run from before there were ledgers is as detkit writes it."""
    if path.name != CONFIG:
        return path.suffix == ".png" or names_detkit(path)
    from omegaconf import OmegaConf

    try:
        text = path.read_text(encoding="utf-8")
        return OmegaConf.to_yaml(OmegaConf.create(text)) == text  # a person's has comments, or another order
    except Exception:
        return False


def check_unused(folder: Path) -> None:
    """Raises ValueError if a run is in the folder, with what can be done about it."""
    occupied = [name for name in EVIDENCE if (folder / name).exists()]
    written, foreign = run_files(folder)
    if occupied and not foreign:
        any_saved = any(STEP_NAME.fullmatch(path.name) for path in written)
        on = "use --resume to continue it, " if any_saved else "it has no checkpoint to resume from; "
        raise ValueError(
            f"{printable(folder)} already holds a run ({', '.join(occupied)}): {on}"
            f"use --overwrite to replace it, or choose another folder with --output"
        )


def write_text(path: Path, text: str) -> None:
    """UTF-8, in place all at once, and into the folder's ledger: a run that is killed or finds the disk full leaves
    what was there."""
    outputs.write_text(path, text, ledger=Ledger(path.parent))


def write_json(path: Path, content: Tree) -> None:
    """Readable JSON, in place all at once."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_own(path: Path, text: str) -> bool:
    """Writes a text unless a person changed what detkit wrote there; says whether it did."""
    written, _ = run_files(path.parent)
    if os.path.lexists(path) and path not in written:
        return False
    write_text(path, text)
    return True
