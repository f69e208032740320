"""What the benchmarks share: the machine they ran on, and how much memory they took."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "tf32", "bf16")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="tf32 is for a GPU; bf16 is autocast")


def set_precision(device: str, precision: str) -> contextlib.AbstractContextManager[object]:
    """Turns TF32 on or off for the process (cuDNN has it on by itself); the context in which to compute."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("nothing to measure: torch sees no CUDA device here")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def synchronize(device: str) -> None:
    """Waits for what was started on the GPU; on the CPU nothing is ever pending."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def image_size(text: str) -> tuple[int, int]:
    """The type of an option that names a size: 640, or 800x1333 (height x width)."""
    height, _, width = text.partition("x")
    try:
        return int(height), int(width or height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 640 or 800x1333") from error


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


def peak_device_memory_mib(device: torch.device) -> float:
    """Largest memory of this process so far: what PyTorch had allocated on the GPU, or `peak_memory_mib`."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_memory_mib()


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
