"""The life of one worker process, from joining the others to its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from detkit.distributed.failure import describe, write_error_file
from detkit.distributed.process_info import ProcessInfo
from detkit.utils.exit_codes import stopped_by

if TYPE_CHECKING:
    from detkit.distributed.coordinator import Coordinator


def run_worker(process: ProcessInfo, work: Callable[[Coordinator], int]) -> int:
    """Runs a worker's whole life; gives back its exit code, and sees to it that a failure is told once."""
    from detkit.distributed.coordinator import Coordinator

    coordinator = Coordinator(process)
    try:
        coordinator.join()
        return work(coordinator)
    except KeyboardInterrupt:
        return stopped_by(signal.SIGINT)
    except (Exception, SystemExit) as error:  # a part that calls sys.exit() would leave the others waiting for it
        first = coordinator.report_failure(describe(error, process))
        own = first.rank == process.rank
        # Who started us tells it: our own parent, or torchrun, which prints what it finds in the files, last.
        told = (process.launcher == "detkit" or (own and process.launcher == "torchrun")) and write_error_file(
            first, own=own
        )
        if own and not told:
            print(first.format(), file=sys.stderr, flush=True)
        coordinator.drain()
        return first.code
