"""The key-value store of a run: ranks find each other there, exchange facts, and report the first failure."""

from __future__ import annotations

import contextlib
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
from pathlib import Path
from typing import TypeVar, cast

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from detkit.distributed.failure import Failure, MissingRankError, PeerFailedError, write_error_file
from detkit.distributed.network import run_with_timeout, wait_for_port
from detkit.distributed.process_info import NAMES, ProcessInfo
from detkit.distributed.progress import Progress
from detkit.distributed.watchdog import HangReport, Watchdog
from detkit.utils.exit_codes import ExitCode

log = logging.getLogger("detkit")

JOIN_SECONDS = 60.0
"""How long the ranks wait for each other before the missing one is named and the run ends."""
DRAIN_SECONDS = 10.0
"""How long the store of a failed run stays open for the ranks that have not read the failure yet."""
CONNECT = "DETKIT_CONNECT_SECONDS"
"""Seconds without progress, while the ranks connect, after which the one that holds them up is named (45)."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long rank 0 may work while the others wait for it."""
FAILURE, STARTED = "failure", "started"

T = TypeVar("T")


class Coordinator:
    """The store through which the ranks of a run talk before, and besides, the process group. A process alone has none.

    hosts: the host of every rank.
    """

    def __init__(self, process: ProcessInfo) -> None:
        self.process = process
        self.hosts = [socket.gethostname() if rank == process.rank else "" for rank in range(process.world_size)]
        self._store: Store | None = None
        self._run_store: Store | None = None
        self._first_failure: Failure | None = None
        self._rank_zero_calls = 0

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Connects and waits for all ranks. Raises MissingRankError with those missing after `seconds`."""
        process = self.process
        if not process.is_worker:
            return
        deadline = time.monotonic() + seconds
        base = connect(process, seconds)
        self._run_store = PrefixStore(f"detkit/{process.run_id}", base)
        self._store = PrefixStore(f"round/{process.round}", self._run_store)
        if process.parent is not None:
            exit_with_parent(process.parent)
        facts = {"host": socket.gethostname(), "world_size": process.world_size, "launcher": NAMES[process.launcher]}
        facts_by_rank = self.all_gather("here", facts, max(deadline - time.monotonic(), min(seconds, 10.0)))
        self.hosts = [str(other["host"]) for other in facts_by_rank]
        for rank, other in enumerate(facts_by_rank):
            if other["world_size"] != process.world_size:
                raise ValueError(
                    f"rank {rank} on {other['host']} was started as one of {other['world_size']} processes, rank "
                    f"{process.rank} on {facts['host']} as one of {process.world_size}: "
                    "start every process with the same world size"
                )

    def all_gather(self, name: str, value: T, seconds: float = JOIN_SECONDS, doing: str = "start") -> list[T]:
        """Returns every rank's value under a name, by rank. Raises MissingRankError with the ranks that are late.

        value: anything that JSON holds. doing: what a late rank is at, for the message.
        """
        if self._store is None:
            return [value]
        rank, world_size = self.process.rank, self.process.world_size
        self._store.set(f"{name}/{rank}", json.dumps(value))
        missing = list(range(world_size))
        deadline, warn_at = time.monotonic() + seconds, time.monotonic() + JOIN_SECONDS / 2
        while missing := [other for other in missing if not self._store.check([f"{name}/{other}"])]:
            if self._store.check([FAILURE]):
                raise PeerFailedError(Failure(**json.loads(self._store.get(FAILURE))).summary())
            now = time.monotonic()
            if now > deadline:
                late = self.format_ranks(missing)
                raise MissingRankError(f"timed out after {seconds:.0f} s waiting for {late} ({doing})")
            if now > warn_at and rank == min(set(range(world_size)) - set(missing)):
                log.warning("waiting for %s (%s)", self.format_ranks(missing), doing)
                warn_at += JOIN_SECONDS / 2
            time.sleep(0.05)
        keys = [f"{name}/{other}" for other in range(world_size)]
        return [json.loads(text) for text in self._store.multi_get(keys)]

    def on_rank_zero(self, action: Callable[[], T]) -> T | None:
        """Runs on rank 0 while the others wait and get None; a failure of rank 0 ends the others, too."""
        result = action() if self.process.rank == 0 else None
        self._rank_zero_calls += 1
        name = f"first/{self._rank_zero_calls}"
        self.all_gather(name, True, COLLECTIVE_TIMEOUT.total_seconds(), "rank 0 prepares the run")
        return result

    def format_ranks(self, ranks: Sequence[int]) -> str:
        """`rank 2 on node b, rank 3`: with the hosts that are known."""
        return ", ".join(f"rank {rank}" + (f" on {self.hosts[rank]}" if self.hosts[rank] else "") for rank in ranks)

    def report_failure(self, failure: Failure) -> Failure:
        """Reports the failure of this process to the others; returns the first one of the run."""
        if self._store is None:
            return failure
        if self._first_failure is None:
            store, kept = self._store, list[bytes]()
            # compare_set keeps what is there: the first failure stays the first.
            run_with_timeout(lambda: kept.append(store.compare_set(FAILURE, "", failure.to_json())), DRAIN_SECONDS)
            # Without an answer the store is gone with the process that kept it; then this one reports its own failure.
            self._first_failure = Failure(**json.loads(kept[0])) if kept else failure
        return self._first_failure

    def report_hang(self, hang: HangReport) -> None:
        """Reports that ranks hang, to the other processes and the agent; in place of those that can't any more."""
        rank = hang.ranks[0]
        failure = Failure(rank=rank, host=self.hosts[rank], code=ExitCode.HUNG, kind="crash", text=hang.text)
        write_error_file(self.report_failure(failure), is_own=self.process.rank in hang.ranks)

    def mark_started(self) -> None:
        """Notes that the run folder belongs to this run from now on, whatever happens to its processes."""
        if self._run_store is not None:
            self._run_store.set(STARTED, "1")

    def was_started(self) -> bool:
        """Whether processes of this run had the run folder before, so that this is a restart."""
        return self._run_store is not None and self._run_store.check([STARTED])

    def group_store(self) -> Store:
        """The store through which torch.distributed exchanges addresses."""
        assert self._store is not None
        return PrefixStore("group", self._store)

    def watchdog(
        self, name: str, progress: Progress, timeout: float | None, *, setting: str,
        log_file: Path | None = None, worker_pids: Callable[[], Sequence[int]] = list,
    ) -> Watchdog:  # fmt: skip
        """A watchdog of this rank that compares itself with those of the same name on the other ranks."""
        store = None if self._store is None else PrefixStore(f"watch/{name}", self._store)
        return Watchdog(
            progress, timeout, rank=self.process.rank, hosts=self.hosts, store=store, log_file=log_file,
            worker_pids=worker_pids, report=self.report_hang, setting=setting,
        )  # fmt: skip

    def connect_watchdog(self, phase: str) -> Watchdog:
        """A watchdog for what all ranks do together before they train."""
        timeout = None if self._store is None else connect_seconds()
        return self.watchdog(phase, Progress(phase=phase), timeout, setting=CONNECT)

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Keeps the store open after a failure until the others have read it, if this process hosts it."""
        if self._store is None:
            return
        store = self._store

        def wait() -> None:
            gone, deadline = store.add("gone", 1), time.monotonic() + seconds
            while self.process.hosts_store and gone < self.process.world_size and time.monotonic() < deadline:
                time.sleep(0.05)
                gone = store.add("gone", 0)

        run_with_timeout(wait, seconds + 1)  # without an answer the process that hosts it is gone, and nobody waits


def connect(process: ProcessInfo, seconds: float) -> Store:
    """Opens the store if this process hosts it, or connects to it within `seconds`."""
    here = socket.gethostname()
    host, _, port = process.store.rpartition(":")
    reason: Exception | None = None if process.hosts_store else wait_for_port(host, int(port), seconds)
    if reason is None:
        try:
            timeout = timedelta(seconds=max(seconds, 1.0))
            return cast(Store, TCPStore(host, int(port), None, process.hosts_store, timeout, wait_for_workers=False))
        except (dist.DistError, RuntimeError) as error:
            reason = error
    text = f"rank 0 can't listen at {process.store}: {reason}. Is MASTER_ADDR an address of {here}, where rank 0 runs?"
    if not process.hosts_store:
        text = (
            f"can't reach rank 0 at {process.store} within {seconds:.0f} s ({reason}). Is rank 0 started, is that "
            "its address as seen from here, does a firewall block the port?"
        )
    elif "EADDRINUSE" in str(reason) or "in use" in str(reason):
        text = f"another program on {here} has port {port}: set MASTER_PORT to a free port on every rank"
    raise MissingRankError(text)


def connect_seconds() -> float:
    """Reads `CONNECT`; ValueError unless it is a positive number. No option, as the config isn't compared yet."""
    text = os.environ.get(CONNECT, "45")
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise ValueError(f"{CONNECT}={text}: must be a number of seconds above 0; unset it for 45")


def exit_with_parent(parent: int) -> None:
    """Ends this process by SIGTERM when the process that launched it is gone, so that none is left over."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="exit-with-parent").start()
