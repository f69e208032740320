"""Settings of torch for a run: device, threads, deterministic kernels."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from detkit.distributed.group import device_of
from detkit.distributed.process_info import ProcessInfo
from detkit.train.options import TrainOptions
from detkit.utils.cores import most_processes, usable_cores

log = logging.getLogger("detkit")


def set_up_torch(options: TrainOptions, process: ProcessInfo | None = None) -> torch.device:
    """Sets threads and determinism; returns the device of this process."""
    process = process or ProcessInfo()
    if options.threads is not None:
        if options.threads > (most := most_processes()):
            raise ValueError(f"train.threads: {options.threads} threads on {usable_cores()} cores: at most {most}")
        torch.set_num_threads(options.threads)
    elif process.local_world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        # srun may have bound the process to its own cores already; usable_cores then counts just these.
        bound = usable_cores() < (os.cpu_count() or 1)
        torch.set_num_threads(max(1, usable_cores() // (1 if bound else process.local_world_size)))
    set_deterministic(options.deterministic, compiling=options.compile)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device: cuda, but torch sees no GPU; use train.device=cpu or auto")
    return device_of(process, uses_gpu(options.device))


def uses_gpu(device: str) -> bool:
    """Whether `train.device` means GPUs on this machine."""
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def set_deterministic(on: bool, *, compiling: bool = False) -> None:
    """Makes torch choose kernels that give the same bits every time, or lets it choose the fastest.

    Where an operation has no such kernel, torch warns and continues.
    """
    if on:
        # Read by cuBLAS when it starts; without it torch warns at every matrix product on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiling:
        torch.use_deterministic_algorithms(on, warn_only=True)
    else:
        # The same switch, without the two seconds that importing the compiler takes, whose switch that sets, too.
        torch.set_deterministic_debug_mode("warn" if on else "default")
    # Filling fresh memory is for finding bugs, and costs a pass over every temporary.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = on
    torch.backends.cudnn.benchmark = not on


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Puts random generators, threads and choice of kernels back afterwards to what they were."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)


def warn_of_slow_precision(options: TrainOptions, device: torch.device) -> None:
    """Logs a warning where the CPU has to emulate bf16 or fp16."""
    if device.type != "cpu" or options.precision == "fp32":
        return
    capabilities = torch.cpu.get_capabilities()
    native = ("avx512_bf16", "amx_bf16") if options.precision == "bf16" else ("avx512_fp16", "amx_fp16")
    if not any(capabilities.get(name) for name in native) and capabilities.get("architecture") == "x86_64":
        log.warning(
            "train.precision=%s: this CPU has neither %s instructions; training will be about 15x slower "
            "than with fp32", options.precision, " nor ".join(native),
        )  # fmt: skip
