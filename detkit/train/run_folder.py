"""What a run leaves on disk besides its checkpoints, and on which machine it ran."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG, ENVIRONMENT, METRICS, LOG, RESULT = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "log.txt",
    "result.json",
)
CURVES, PREDICTIONS, TENSORBOARD = "curves.png", "predictions.png", "tensorboard"
EVIDENCE = (METRICS, RESULT, "checkpoints")
RUN_FILES = (CONFIG, ENVIRONMENT, METRICS, LOG, RESULT, CURVES, PREDICTIONS, TENSORBOARD, "checkpoints")
PER_RANK = ("log_rank*.txt", "profile_rank*.json")


def prepare_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Makes the run folder. A run that is already in it is resumed or overwritten only by request."""
    occupied = [name for name in EVIDENCE if (folder / name).exists()]
    if occupied and not (resume or overwrite):
        raise ValueError(
            f"{folder} holds a run already ({', '.join(occupied)}): go on with it by --resume, "
            f"replace it by --overwrite, or choose another folder by --output"
        )
    if not resume:
        per_rank = [path for pattern in PER_RANK for path in folder.glob(pattern)]
        for path in [*(folder / name for name in RUN_FILES), *per_rank]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON, in place all at once."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """Command, versions, machine and source revision of this process."""
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
