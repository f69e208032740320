"""What ended a process, told once: by the rank that failed first, with its host, and not by its victims."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from detkit.distributed.process_info import ProcessInfo
from detkit.utils.errors import error_lines, exit_code
from detkit.utils.exit_codes import STOPPED, ExitCode, stopped_by

if TYPE_CHECKING:
    pass

FINAL = frozenset({ExitCode.WRONG_INPUT, ExitCode.DIVERGED, ExitCode.DISK_FULL, *STOPPED})
"""Exit codes after which another try would end the same way."""

Kind = Literal["user", "crash", "network", "missing"]


class MissingRankError(RuntimeError):
    """Processes of the run that didn't come or can't be reached."""


class PeerFailedError(RuntimeError):
    """Another rank failed while this one waited for it."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure. text: for a user. trace: the traceback, of a crash."""

    rank: int
    host: str
    code: int
    kind: Kind
    text: str
    trace: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    def format(self) -> str:
        """What a person reads: a user's error as in one process, a crash with its traceback."""
        if self.kind == "user":
            return self.trace + "\n".join(f"error: {line}" for line in self.text.splitlines())
        return f"{self.trace.rstrip()}\nerror: rank {self.rank} on {self.host}: {self.text}".lstrip("\n")

    def summary(self) -> str:
        """In a line."""
        return f"rank {self.rank} on {self.host}: {self.text.splitlines()[0] if self.text else 'no message'}"


def describe(error: BaseException, process: ProcessInfo) -> Failure:
    """An exception of this process as a failure."""
    text, trace, host = "\n".join(error_lines(error)), "", socket.gethostname()
    code: int
    if isinstance(error, MissingRankError):
        code, kind = ExitCode.RANK_MISSING, "missing"
    elif isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) and not is_network(error):
        code, kind = exit_code(error), "user"
        if os.environ.get("DETKIT_TRACEBACK"):
            trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    else:
        code, kind = ExitCode.FAILED, "network" if is_network(error) else "crash"
        text = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[0]
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Failure(rank=process.rank, host=host, code=code, kind=kind, text=text, trace=trace)  # type: ignore[arg-type]


def run_with_timeout(work: Callable[[], object], seconds: float) -> bool:
    """Does something that asks the network; False where no answer came within `seconds`, or whoever answers has gone.

    A cut cable is silent: a question to torch's store then waits for as long as the system sends it again, a
    quarter of an hour. The thread that waits is left behind.
    """
    answered = threading.Event()

    def run() -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            work()
            answered.set()

    thread = threading.Thread(target=run, name="detkit store", daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


def is_network(error: BaseException) -> bool:
    """Whether an exception only says that another process has gone."""
    import torch.distributed as dist

    if isinstance(error, (PeerFailedError, dist.DistError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "ProcessGroup"))


def write_error_file(failure: Failure, *, own: bool) -> bool:
    """Writes the file in which torchelastic's agent looks for a worker's failure; returns False without an agent."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return False
    extra = {"py_callstack": failure.trace or failure.format(), "timestamp": str(int(time.time()))}
    message = {"message": failure.text, "extraInfo": extra, "errorCode": failure.code}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"message": message, "detkit": {"failure": asdict(failure), "own": own}}, file)
    return True


def root_cause(failures: Mapping[int, Any]) -> tuple[Failure, bool]:
    """The failure that the others came from, and whether it happened on this machine.

    failures: torchelastic's ProcessFailure by global rank. A rank's own error that isn't a broken
    connection comes first, then a rank killed by a signal, then what a rank heard from another one.
    """
    told: list[tuple[Failure, bool]] = []
    for failure in failures.values():
        extra = failure.error_file_data.get("detkit")
        if extra:
            told.append((Failure(**extra["failure"]), bool(extra["own"])))
    own = [failure for failure, mine in told if mine]
    for first in own:
        if first.kind != "network":
            return first, True
    host = socket.gethostname()
    for rank, failure in failures.items():
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            name = failure.signal_name()
            why = " (killed: out of memory, or by somebody)" if name == "SIGKILL" else ""
            text = f"process {failure.pid} died of {name}{why}"
            return Failure(rank=rank, host=host, code=stopped_by(-failure.exitcode), kind="crash", text=text), True
    if told:
        return (own[0], True) if own else told[0]
    rank, failure = max(failures.items(), key=lambda item: item[1].exitcode)
    code = failure.exitcode if failure.exitcode > 0 else stopped_by(-failure.exitcode)
    text = f"process {failure.pid} ended with exit code {failure.exitcode}"
    return Failure(rank=rank, host=host, code=code, kind="crash", text=text), True
