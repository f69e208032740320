"""CPU cores of this process."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The number of CPU cores on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_processes() -> int:
    """Number of threads or processes on one machine above which the setting is taken for a typo."""
    return max(64, 8 * usable_cores())
