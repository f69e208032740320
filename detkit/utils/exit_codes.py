"""Exit codes of detkit's commands, as docs and `detkit train --help` list them."""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """How a process ended; 130 and 143 after SIGINT and SIGTERM come on top."""

    FINISHED = 0
    FAILED = 1
    WRONG_INPUT = 2
    DIVERGED = 3
    RANK_MISSING = 4
    DISK_FULL = 5
    WORKER_DIED = 6
    HUNG = 7


def stopped_by(signal_number: int) -> int:
    """The exit code of a process that a signal ended, as shells report it."""
    return 128 + signal_number


STOPPED = (stopped_by(signal.SIGINT), stopped_by(signal.SIGTERM))
