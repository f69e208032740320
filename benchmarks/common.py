"""What the benchmarks share: the machine they ran on, and how much memory they took."""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import sys
from pathlib import Path


def machine_line() -> str:
    """CPU, cores, threads, vector instructions, memory, GPU and versions, on one line."""
    import torch

    parts = [
        _cpu_model(),
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
        f"{torch.get_num_threads()} threads",
        torch.backends.cpu.get_cpu_capability(),
        f"{_memory_gib():.0f} GiB",
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts.append(f"Python {platform.python_version()}, torch {torch.__version__}")
    return "machine: " + "; ".join(parts)


def json_output(text: str) -> Path:
    """The type of an option that names a JSON file: refuses a file that these tools did not write, before the work."""
    from detkit.utils.outputs import check_output_file

    try:
        return check_output_file("JSON", text)
    except (ValueError, OSError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def peak_memory_mib() -> float:
    """Largest resident set of this process so far.

    Linux counts into getrusage what the parent held when it forked; VmHWM begins anew with the program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
