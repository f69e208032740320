"""What a run leaves on disk besides its checkpoints, and on which machine it ran."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger("detkit")

CONFIG, ENVIRONMENT, METRICS, LOG, RESULT = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "log.txt",
    "result.json",
)
CURVES, PREDICTIONS, TENSORBOARD = "curves.png", "predictions.png", "tensorboard"
LOCK = ".lock"
LOCK_SECONDS = 20.0
"""What the processes of a run that was killed have to end before the next one refuses to go on."""
EVIDENCE = (METRICS, RESULT, "checkpoints")
RUN_FILES = (CONFIG, ENVIRONMENT, METRICS, LOG, RESULT, CURVES, PREDICTIONS, TENSORBOARD, "checkpoints")
PER_RANK = ("log_rank*.txt", "profile_rank*.json")


@contextlib.contextmanager
def claimed(folder: Path, *, wait: float = LOCK_SECONDS, restarted: bool = False) -> Iterator[None]:
    """Meanwhile the folder is this process's; a ValueError says whose it still is after `wait` seconds.

    The system gives it free when the process ends, however it ends. Where the file system has no locks nothing is
    refused; nor is a restart, as the lock of a machine that was lost stays with a file server for some time.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    # lockf, not flock: a loader process that outlives its parent must not keep the lock.
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline, told = time.monotonic() + wait, False
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN) or restarted:
                    break
                owner = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"{folder} is in use: {owner} trains in it; end that run first, or choose another folder by "
                        "--output"
                    ) from None
                if not told:
                    log.warning("%s is in use by %s; waiting %.0f s for its end", folder, owner, wait)
                    told = True
                time.sleep(0.2)
            else:
                with contextlib.suppress(OSError):  # a full disk speaks where it matters
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                break
        yield
    finally:
        os.close(handle)


def prepare_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Makes the run folder. A run that is already in it is resumed or overwritten only by request."""
    if not (resume or overwrite):
        refuse_occupied(folder)
    if not resume:
        per_rank = [path for pattern in PER_RANK for path in folder.glob(pattern)]
        for path in [*(folder / name for name in RUN_FILES), *per_rank]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def refuse_occupied(folder: Path) -> None:
    """Raises ValueError if a run is in the folder, with what can be done about it."""
    occupied = [name for name in EVIDENCE if (folder / name).exists()]
    if occupied:
        any_saved = next((folder / "checkpoints").glob("step_*.pt"), None) is not None
        on = "go on with it by --resume, " if any_saved else "it has no checkpoint to go on from; "
        raise ValueError(
            f"{folder} holds a run already ({', '.join(occupied)}): {on}"
            f"replace it by --overwrite, or choose another folder by --output"
        )


def write_text(path: Path, text: str) -> None:
    """In place all at once: a run that is killed or finds the disk full leaves what was there."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON, in place all at once."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def environment() -> dict[str, Any]:
    """Command, versions, machine and source revision of this process."""
    import numpy as np
    import PIL
    import torch
    import torchvision

    import detkit

    package = Path(detkit.__file__).parent
    machine: dict[str, Any] = {
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
        machine["cuda"] = torch.version.cuda
    return {
        "command": shlex.join(sys.argv),
        "versions": {
            "detkit": detkit.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "machine": machine,
        "package": str(package),
        "git": git_revision(package),
    }


def cpu_name() -> str:
    """The processor as the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_revision(folder: Path) -> str | None:
    """Commit of the repository around `folder`, with "+changes" if files differ; None without one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no", "--", ".") else "")


def peak_memory_mb(device: Any) -> float:
    """Most memory that was in use: on the GPU by tensors, else by the whole process."""
    import torch

    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
