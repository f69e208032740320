"""The life of one worker process, from joining the others to its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from detkit.distributed.coordinator import Coordinator
from detkit.distributed.failure import describe_error, write_error_file
from detkit.distributed.process_info import ProcessInfo
from detkit.utils.exit_codes import stopped_by


def run_worker(process: ProcessInfo, work: Callable[[Coordinator], int]) -> int:
    """Runs the work of one rank and returns its exit code. A failure of any rank is reported once."""
    coordinator = Coordinator(process)
    try:
        coordinator.join()
        return work(coordinator)
    except KeyboardInterrupt:
        return stopped_by(signal.SIGINT)
    except (Exception, SystemExit) as error:  # a part that calls sys.exit() would leave the others waiting for it
        first = coordinator.report_failure(describe_error(error, process))
        is_own = first.rank == process.rank
        # Our own agent prints the failure; torchrun prints every error file.
        launcher_prints = process.launcher == "detkit" or (is_own and process.launcher == "torchrun")
        if not (launcher_prints and write_error_file(first, is_own=is_own)) and is_own:
            print(first.format(), file=sys.stderr, flush=True)
        coordinator.drain()
        return first.code
