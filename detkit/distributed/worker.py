"""The life of one worker process, from joining the others to its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from detkit.distributed.environment import Place
from detkit.distributed.failure import describe, write_error_file

if TYPE_CHECKING:
    from detkit.distributed.group import Meeting


def run_worker(place: Place, work: Callable[[Meeting], int]) -> int:
    """Runs a worker's whole life; gives back its exit code, and sees to it that a failure is told once."""
    from detkit.distributed.group import Meeting

    meeting = Meeting(place)
    try:
        meeting.join()
        return work(meeting)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (Exception, SystemExit) as error:  # a part that calls sys.exit() would leave the others waiting for it
        first = meeting.post(describe(error, place))
        own = first.rank == place.rank
        # Who started us tells it: our own parent, or torchrun, which prints what it finds in the files, last.
        told = (place.launcher == "detkit" or (own and place.launcher == "torchrun")) and write_error_file(
            first, own=own
        )
        if own and not told:
            print(first.told(), file=sys.stderr, flush=True)
        meeting.leave()
        return first.code
