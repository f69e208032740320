"""Randomness as a function: of the seed before training, of seed, step and rank in it.

A step does not depend on how many numbers earlier steps drew. A checkpoint therefore needs only the
seed and the step, evaluation can't disturb training, and the number of processes may change.
"""

from __future__ import annotations

import hashlib
import os
import random

import torch


def seed_everything(*parts: int) -> None:
    """Seeds torch (all devices), numpy and random by a hash of the numbers."""
    import numpy as np

    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little"))
    np.random.seed(int.from_bytes(digest[8:12], "little"))
    random.seed(digest[12:])


def set_deterministic(on: bool, *, compiling: bool = False) -> None:
    """Makes torch choose kernels that give the same bits every time, or lets it choose the fastest.

    Where an operation has no such kernel torch warns and goes on.
    """
    if on:
        # Read by cuBLAS when it starts; without it torch warns at every matrix product on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiling:
        torch.use_deterministic_algorithms(on, warn_only=True)
    else:
        # The same switch, without two seconds for the import of the compiler that it also tells.
        torch.set_deterministic_debug_mode("warn" if on else "default")
    # Filling fresh memory is for finding bugs, and costs a pass over every temporary.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = on
    torch.backends.cudnn.benchmark = not on
