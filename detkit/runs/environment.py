"""The machine, versions and source revision of this process."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import torch

from detkit.utils.types import Tree
from detkit.version import __version__


def environment() -> Tree:
    """Command, versions, machine and source revision of this process."""
    import torchvision

    package = Path(__file__).parents[1]
    machine: Tree = {"system": platform.platform(), "cpu": cpu_name()}
    machine |= {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        machine |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {
        "command": shlex.join(sys.argv),
        "versions": {
            "detkit": __version__,
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
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^model name[^:\n]*:(.*)", text, re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()


def git_revision(folder: Path) -> str | None:
    """Commit of the repository around `folder`, with "+changes" if files differ; None without one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=20).decode(errors="replace")
        return ""

    commit = git("rev-parse", "HEAD").strip()
    if not commit:
        return None
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no", "--", ".").strip() else "")


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory: of tensors on the GPU, else of the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
