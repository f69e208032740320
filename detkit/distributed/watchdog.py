"""Finds the rank that hangs, says where, prints stacks, and ends the job so that it can be restarted.

torchelastic's timers know neither step nor phase and print no stack; `monitored_barrier` names late ranks only at a
barrier, which a rank that waits in a gradient all-reduce never reaches. How it works: docs/how-procs-works.md.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path

from torch.distributed.distributed_c10d import Store

from detkit.distributed.network import run_with_timeout
from detkit.distributed.progress import Progress
from detkit.utils.exit_codes import ExitCode

ERROR_STREAM = 2
MOST_NAMED = 8
PATIENCE = 4.0
"""Seconds that the waiting ranks give the one that hangs to report itself first."""


@dataclass(frozen=True)
class Heartbeat:
    """The state of a rank, as it publishes it. number: goes up as long as the process runs at all."""

    rank: int
    host: str
    pid: int
    number: int
    step: int
    phase: str
    phases: int

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.pid}): step {self.step}, {self.phase}"


@dataclass(frozen=True)
class HangReport:
    """The ranks that hang, whether they are beyond reporting it themselves, and the message."""

    ranks: tuple[int, ...]
    unresponsive: bool
    text: str


def diagnose_hang(
    before: Mapping[int, Heartbeat],
    now: Mapping[int, Heartbeat],
    hosts: Sequence[str],
    seconds: float,
    setting: str = "train.hang_timeout",
) -> HangReport:
    """Compares the heartbeats of some time ago and of now. hosts: of all ranks.

    A rank whose number does not change is stopped, or its host is lost; a rank that never published a heartbeat counts
    as one. If all respond, the ranks that have entered the fewest phases hold up the rest.
    """
    world_size = len(hosts)
    silent = [r for r in range(world_size) if r not in now or (r in before and before[r].number == now[r].number)]
    if silent:
        reason = "not responding (stopped, out of memory, or host unreachable)"
        blamed = silent
    else:
        fewest = min(beat.phases for beat in now.values())
        blamed = [rank for rank, beat in sorted(now.items()) if beat.phases == fewest]
        all_wait = len(blamed) == world_size > 1
        reason = "all ranks are waiting: the collective hangs" if all_wait else "hangs"
    lines = [f"no progress for {seconds:.0f} s ({setting})"]
    for rank in [*blamed, *sorted(set(now) - set(blamed))][:MOST_NAMED]:
        where = str(now[rank]) if rank in now else f"rank {rank} on {hosts[rank]}"
        lines.append(f"  {where}  <- {reason}" if rank in blamed else f"  {where}, waiting")
    if world_size > MOST_NAMED:
        lines.append(f"  and {world_size - MOST_NAMED} more ranks")
    return HangReport(tuple(blamed), bool(silent), "\n".join(lines))


@dataclass(eq=False)
class Watchdog:
    """Watches a process from a separate thread while the context is active.

    timeout: seconds without a tick that count as a hang, None for no watching. hosts: of all ranks, one each.
    store: through which the ranks compare themselves, None for a process alone. log_file: gets message and stacks
    besides stderr. worker_pids: gives the process ids of loader workers, whose stacks are printed too. report: gets
    the finding before the end. end: ends the process with `ExitCode.HUNG`, the exit code of all ranks that waited.
    setting: the option that `timeout` comes from, for the message.
    """

    progress: Progress
    timeout: float | None
    _: KW_ONLY
    rank: int = 0
    hosts: Sequence[str] = ("localhost",)
    store: Store | None = None
    log_file: Path | None = None
    worker_pids: Callable[[], Sequence[int]] = list
    report: Callable[[HangReport], None] = lambda _: None
    end: Callable[[int], None] = os._exit
    setting: str = "train.hang_timeout"

    def __post_init__(self) -> None:
        self.world_size = len(self.hosts)
        self._interval = min(self.timeout / 8, 5.0) if self.timeout else 0.0
        self._connection: Store | None = None
        self._number = 0
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        if self.timeout:
            self._thread = threading.Thread(target=self._watch, name="detkit watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._has_backstop:
            faulthandler.cancel_dump_traceback_later()

    @property
    def _has_backstop(self) -> bool:
        return bool(self.timeout) and self.world_size > 1

    def _watch(self) -> None:
        assert self.timeout is not None
        # A separate connection: the loop may be waiting in the group's.
        self._connection = self.store.clone() if self.store is not None else None  # type: ignore[attr-defined]
        idle, seen, last = 0.0, self.progress.ticks, time.monotonic()
        before: dict[int, Heartbeat] = {}
        while not self._left.is_set():
            if self._has_backstop:
                # Native code that never lets Python run stops this thread too; that timer needs no Python.
                faulthandler.dump_traceback_later(2 * self.timeout + 10, exit=True, file=ERROR_STREAM)
            self._publish()
            self._left.wait(self._interval)
            now = time.monotonic()
            # A process that was stopped, or a machine that slept, did not hang during that time.
            idle, last = idle + min(now - last, 2 * self._interval), now
            if self.progress.ticks != seen:
                idle, seen, before = 0.0, self.progress.ticks, {}
            elif idle >= self.timeout / 2 and not before:
                before = self._read_heartbeats()
            elif idle >= self.timeout:
                self._publish()
                hang = diagnose_hang(before, self._read_heartbeats(), self.hosts, idle, self.setting)
                self._end_process(hang)
                return

    def _heartbeat(self) -> Heartbeat:
        p = self.progress
        return Heartbeat(self.rank, socket.gethostname(), os.getpid(), self._number, p.step, p.phase, p.phases)

    def _publish(self) -> None:
        self._number += 1
        text = json.dumps(asdict(self._heartbeat()))
        self._with_store(lambda store: store.set(f"detkit/heartbeat/{self.rank}", text))

    def _read_heartbeats(self) -> dict[int, Heartbeat]:
        """Returns the last heartbeat of every rank, without ranks that published none or can't be reached."""
        heartbeats: dict[int, Heartbeat] = {}

        def read(store: Store) -> None:
            for rank in set(range(self.world_size)) - {self.rank}:
                if store.check([f"detkit/heartbeat/{rank}"]):
                    heartbeats[rank] = Heartbeat(**json.loads(store.get(f"detkit/heartbeat/{rank}")))

        self._with_store(read)
        return {**heartbeats, self.rank: self._heartbeat()}

    def _with_store(self, action: Callable[[Store], None]) -> None:
        """Asks the store. If it is gone, or a cut cable keeps its answer away, this rank continues to watch alone."""
        store = self._connection
        if store is not None and not run_with_timeout(lambda: action(store), max(2 * self._interval, 2.0)):
            self._connection = None

    def _end_process(self, hang: HangReport) -> None:
        """Prints message and stacks, reports the hang, ends the process."""
        faulthandler.cancel_dump_traceback_later()
        is_blamed = self.rank in hang.ranks
        if not is_blamed:
            time.sleep(PATIENCE)
        # The blamed rank prints; if it can't, the first of the others.
        others = set(range(self.world_size)) - set(hang.ranks)
        prints = is_blamed or (hang.unresponsive and self.rank == min(others))
        if self._left.is_set():
            return
        with contextlib.ExitStack() as stack:
            outputs = [ERROR_STREAM] if prints else []
            if self.log_file is not None:
                outputs.append(stack.enter_context(self.log_file.open("ab", buffering=0)).fileno())
            for output in outputs:
                _write(output, f"error: {hang.text}\nstacks of rank {self.rank}:\n")
                faulthandler.dump_traceback(file=output, all_threads=True)
            if is_blamed:
                self._end_workers()
            for output in outputs:
                _write(output, f"rank {self.rank} ends with exit code {ExitCode.HUNG:d}; resume with --resume\n")
        with contextlib.suppress(Exception):  # whatever happens, the process ends
            self.report(hang)
        self.end(ExitCode.HUNG)

    def _end_workers(self) -> None:
        """Makes loader workers print their stacks, then kills them: their parent can't any more."""
        for number in (signal.SIGUSR1, signal.SIGKILL) if sys.platform != "win32" else ():
            for pid in self.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.5)


def _write(output: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(output, text.encode())
