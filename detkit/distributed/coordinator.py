"""The key-value store of a run: ranks find each other there, exchange facts, and report the first failure."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from detkit.distributed.failure import (
    Failure,
    MissingRankError,
    PeerFailedError,
    run_with_timeout,
    write_error_file,
)
from detkit.distributed.process_info import NAMES, ProcessInfo
from detkit.distributed.progress import Progress
from detkit.distributed.watchdog import Watchdog
from detkit.utils.exit_codes import ExitCode

log = logging.getLogger("detkit")

JOIN_SECONDS = 60.0
"""After which a rank that isn't there is named and the run ends."""
DRAIN_SECONDS = 10.0
CONNECT = "DETKIT_CONNECT_SECONDS"
"""Without progress while the ranks connect, after which the one that holds them up is named (45)."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""What rank 0 may do while the others wait for it."""
TCPStore: Any = dist.TCPStore  # type: ignore[attr-defined]
PrefixStore: Any = dist.PrefixStore  # type: ignore[attr-defined]
FAILURE, STARTED = "failure", "started"

T = TypeVar("T")


class Coordinator:
    """The place where the processes of a run leave word for each other. Alone, there is no one to tell."""

    def __init__(self, process: ProcessInfo) -> None:
        self.process = process
        self.hosts = [socket.gethostname() if rank == process.rank else "" for rank in range(process.world_size)]
        self._store: Any = None
        self._run: Any = None
        self._first_failure: Failure | None = None
        self._rank_zero_calls = 0

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Connects and calls the roll. Raises MissingRankError that names who isn't there after `seconds`."""
        process = self.process
        if not process.is_worker:
            return
        deadline = time.monotonic() + seconds
        base = self._connect(seconds)
        self._run = PrefixStore(f"detkit/{process.run_id}", base)
        self._store = PrefixStore(f"round/{process.round}", self._run)
        if process.parent is not None:
            exit_with_parent(process.parent)
        facts = {"host": socket.gethostname(), "world_size": process.world_size, "launcher": NAMES[process.launcher]}
        found = self.all_gather("here", facts, max(deadline - time.monotonic(), min(seconds, 10.0)))
        self.hosts = [f["host"] for f in found]
        for rank, other in enumerate(found):
            if other["world_size"] != process.world_size:
                raise ValueError(
                    f"rank {rank} on {other['host']} was started as one of {other['world_size']} processes, rank "
                    f"{process.rank} on {facts['host']} as one of {process.world_size}: start all alike"
                )

    def all_gather(self, name: str, value: Any, seconds: float = JOIN_SECONDS, doing: str = "start") -> list[Any]:
        """Everyone's value under a name, by rank; JSON. Names the ranks that don't bring theirs in time."""
        if self._store is None:
            return [value]
        self._store.set(f"{name}/{self.process.rank}", json.dumps(value))
        missing = list(range(self.process.world_size))
        deadline, warn_at = time.monotonic() + seconds, time.monotonic() + JOIN_SECONDS / 2
        while missing := [rank for rank in missing if not self._store.check([f"{name}/{rank}"])]:
            self._raise_if_a_peer_failed()
            now = time.monotonic()
            if now > deadline:
                raise MissingRankError(
                    f"after {seconds:.0f} s still no word from {self.format_ranks(missing)} ({doing})"
                )
            if now > warn_at and self.process.rank == min(set(range(self.process.world_size)) - set(missing)):
                log.warning("waiting for %s (%s)", self.format_ranks(missing), doing)
                warn_at += JOIN_SECONDS / 2
            time.sleep(0.05)
        keys = [f"{name}/{rank}" for rank in range(self.process.world_size)]
        return [json.loads(text) for text in self._store.multi_get(keys)]

    def on_rank_zero(self, work: Callable[[], T]) -> T | None:
        """Rank 0 does something that no other may do at the same time; the others wait for it.

        They get None; what rank 0 raises, ends them too.
        """
        done = work() if self.process.rank == 0 else None
        self._rank_zero_calls += 1
        self.all_gather(
            f"first/{self._rank_zero_calls}", True, COLLECTIVE_TIMEOUT.total_seconds(), "rank 0 prepares the run"
        )
        return done

    def format_ranks(self, ranks: list[int]) -> str:
        """`rank 2 on node b, rank 3`: hosts where they are known."""
        return ", ".join(f"rank {rank}" + (f" on {self.hosts[rank]}" if self.hosts[rank] else "") for rank in ranks)

    def report_failure(self, failure: Failure) -> Failure:
        """Leaves word of this process's failure; gives back the run's first one."""
        if self._store is None:
            return failure
        if self._first_failure is None:
            kept: list[str] = []
            # compare_set keeps what is there: the first failure stays the first.
            run_with_timeout(
                lambda: kept.append(self._store.compare_set(FAILURE, "", failure.to_json()).decode()), DRAIN_SECONDS
            )
            # Without an answer the store has gone with the process that kept it; then this one speaks for itself.
            self._first_failure = Failure(**json.loads(kept[0])) if kept else failure
        return self._first_failure

    def mark_started(self) -> None:
        """From now on the run folder is this run's, whatever happens to its processes."""
        if self._run is not None:
            self._run.set(STARTED, "1")

    def was_started(self) -> bool:
        """Whether processes of this run had the run folder before, so that this is a restart."""
        return self._run is not None and bool(self._run.check([STARTED]))

    def group_store(self) -> Any:
        """Where torch.distributed exchanges addresses."""
        return PrefixStore("group", self._store)

    def watchdog(self, what: str) -> Watchdog:
        """A watchdog over what all ranks do together before they train, under a name of its own."""
        store = None if self._store is None else PrefixStore(f"watch/{what}", self._store)
        return Watchdog(
            Progress(phase=what), connect_seconds() if store is not None else None, rank=self.process.rank,
            hosts=self.hosts, store=store, tell=lambda hang: report_hang(self, hang.ranks, hang.text),
            setting=CONNECT,
        )  # fmt: skip

    def _raise_if_a_peer_failed(self) -> None:
        if self._store.check([FAILURE]):
            failure = Failure(**json.loads(self._store.get(FAILURE)))
            raise PeerFailedError(failure.summary())

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """After a failure: the process that keeps the store stays until the others have read whose it was."""
        if self._store is None:
            return

        def wait() -> None:
            gone, deadline = self._store.add("gone", 1), time.monotonic() + seconds
            while self.process.hosts_store and gone < self.process.world_size and time.monotonic() < deadline:
                time.sleep(0.05)
                gone = self._store.add("gone", 0)

        run_with_timeout(wait, seconds + 1)  # without an answer its keeper has gone, and nobody waits

    def _connect(self, seconds: float) -> Any:
        """The store of all rounds, kept by this process or reached within `seconds`."""
        process, here = self.process, socket.gethostname()
        host, _, port = process.store.rpartition(":")
        reason: Exception | None = None if process.hosts_store else wait_for_port(host, int(port), seconds)
        if reason is None:
            try:
                wait = timedelta(seconds=max(seconds, 1.0))
                return TCPStore(host, int(port), None, process.hosts_store, wait, wait_for_workers=False)
            except (dist.DistError, RuntimeError) as error:
                reason = error
        if not process.hosts_store:
            raise MissingRankError(
                f"can't reach rank 0 at {process.store} within {seconds:.0f} s ({reason}). Is rank 0 started, is that "
                "its address as seen from here, does a firewall close the port?"
            ) from None
        if "EADDRINUSE" in str(reason) or "in use" in str(reason):
            raise MissingRankError(
                f"another program on {here} has port {port}: set MASTER_PORT, on every rank, to a free one"
            ) from None
        raise MissingRankError(
            f"rank 0 can't listen at {process.store}: {reason}. Is MASTER_ADDR an address of {here}, where rank 0 runs?"
        ) from None


def connect_seconds() -> float:
    """What `CONNECT` says; ValueError unless that is a positive number. No option, as the config isn't compared yet."""
    text = os.environ.get(CONNECT, "45")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{CONNECT}={text}: must be a number of seconds above 0; unset it for 45")
    return seconds


def wait_for_port(host: str, port: int, seconds: float) -> OSError | None:
    """Waits until something listens there; after `seconds`, what stood in the way."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=max(1.0, min(5.0, seconds))).close()
            return None
        except OSError as error:
            if time.monotonic() > deadline:
                return error
            time.sleep(0.1)


def exit_with_parent(parent: int) -> None:
    """Ends this process in good order when the process that launched it is gone, so that none is left over."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="follow-parent").start()


def report_hang(coordinator: Coordinator, guilty: Sequence[int], text: str) -> None:
    """Leaves word that ranks hang, for the other processes and the agent; in place of those that can't."""
    host = coordinator.hosts[guilty[0]] if guilty else socket.gethostname()
    failure = Failure(rank=guilty[0], host=host, code=ExitCode.HUNG, kind="crash", text=text)
    first = coordinator.report_failure(failure)
    write_error_file(first, own=coordinator.process.rank in guilty)
