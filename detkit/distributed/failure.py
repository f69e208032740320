"""What ended a process, reported once: by the rank that failed first, with its host, and not by its victims."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from detkit.distributed.process_info import ProcessInfo
from detkit.utils.errors import error_lines, exit_code
from detkit.utils.exit_codes import STOPPED, ExitCode, stopped_by

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

FINAL = frozenset({ExitCode.WRONG_INPUT, ExitCode.DIVERGED, ExitCode.DISK_FULL, *STOPPED})
"""Exit codes after which a restart would end the same way."""

Kind = Literal["user", "crash", "network", "missing"]


class MissingRankError(RuntimeError):
    """A rank did not start, or can't be reached."""


class PeerFailedError(RuntimeError):
    """Another rank failed while this one waited for it."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The failure of one rank. text: the message for a user. trace: the traceback of a crash."""

    rank: int
    host: str
    code: int
    kind: Kind
    text: str
    trace: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def format(self) -> str:
        """The message that a person reads: a user's error as in one process, a crash with its traceback."""
        if self.kind == "user":
            return self.trace + "\n".join(f"error: {line}" for line in self.text.splitlines())
        return f"{self.trace.rstrip()}\nerror: rank {self.rank} on {self.host}: {self.text}".lstrip("\n")

    def summary(self) -> str:
        """One line with rank and host."""
        return f"rank {self.rank} on {self.host}: {self.text.splitlines()[0] if self.text else 'no message'}"


def describe_error(error: BaseException, process: ProcessInfo) -> Failure:
    text, trace, kind = "\n".join(error_lines(error)), "", _kind_of(error)
    code = ExitCode.RANK_MISSING if kind == "missing" else exit_code(error) if kind == "user" else ExitCode.FAILED
    if kind in ("crash", "network") or (kind == "user" and os.environ.get("DETKIT_TRACEBACK")):
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if kind in ("crash", "network"):
        text = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[0]
    return Failure(rank=process.rank, host=socket.gethostname(), code=int(code), kind=kind, text=text, trace=trace)


def _kind_of(error: BaseException) -> Kind:
    """`network`: the exception only says that another process is gone."""
    import torch.distributed as dist

    if isinstance(error, MissingRankError):
        return "missing"
    backend = isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "ProcessGroup"))
    if backend or isinstance(error, (PeerFailedError, dist.DistError)):
        return "network"
    return "user" if isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) else "crash"


def write_error_file(failure: Failure, *, is_own: bool) -> bool:
    """Writes the file in which torchelastic's agent looks for a worker's failure; returns False without an agent.

    is_own: whether the failure is of this rank, and not one that another rank reported.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return False
    extra = {"py_callstack": failure.trace or failure.format(), "timestamp": str(int(time.time()))}
    message = {"message": failure.text, "extraInfo": extra, "errorCode": failure.code}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"message": message, "detkit": {"failure": asdict(failure), "is_own": is_own}}, file)
    return True


def root_cause(failures: Mapping[int, ProcessFailure]) -> tuple[Failure, bool]:
    """Returns the failure that caused the others, and whether it happened on this machine.

    failures: by global rank. A rank's own error that is not a broken connection comes first, then a rank killed by
    a signal, then what a rank got from another one.
    """
    reported = [entry for failure in failures.values() if (entry := failure.error_file_data.get("detkit"))]
    own = [Failure(**entry["failure"]) for entry in reported if entry["is_own"]]
    if crashes := [failure for failure in own if failure.kind != "network"]:
        return crashes[0], True
    host = socket.gethostname()
    for rank, failure in failures.items():
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            name = failure.signal_name()
            why = " (out of memory, or killed by a user)" if name == "SIGKILL" else ""
            text = f"process {failure.pid} was ended by {name}{why}"
            return Failure(rank=rank, host=host, code=stopped_by(-failure.exitcode), kind="crash", text=text), True
    if own:
        return own[0], True
    if reported:
        return Failure(**reported[0]["failure"]), False
    rank, failure = max(failures.items(), key=lambda item: item[1].exitcode)
    code = failure.exitcode if failure.exitcode > 0 else stopped_by(-failure.exitcode)
    text = f"process {failure.pid} ended with exit code {failure.exitcode}"
    return Failure(rank=rank, host=host, code=code, kind="crash", text=text), True
