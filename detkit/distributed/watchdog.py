"""Finds the rank that hangs, says where, prints stacks, and ends the job so that it can be started again.

torchelastic has timers (`torch.distributed.elastic.timer`), which kill a process that missed its time, but know
neither step nor phase and print no stack; `monitored_barrier` names the ranks that are late at a barrier, which a
rank that waits in a gradient exchange never reaches. So every process has a thread that watches its own `Progress` and
tells it to the others through the group's store. When one makes no progress for `train.hang_timeout` seconds, all
wait for it; the one that has entered the fewest phases, or is not heard of any more, is to blame.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detkit.distributed.failure import run_with_timeout
from detkit.distributed.progress import Progress
from detkit.utils.exit_codes import ExitCode

log = logging.getLogger("detkit")

ERROR_STREAM = 2
NAMED = 8
PATIENCE = 4.0
"""Seconds that those who wait give to the one that hangs, to speak first."""


@dataclass(frozen=True)
class Heartbeat:
    """What a rank tells of itself. number: goes up as long as the process runs at all."""

    rank: int
    host: str
    process: int
    number: int
    step: int
    phase: str
    entered: int

    def text(self) -> str:
        """For a message."""
        return f"rank {self.rank} on {self.host} (process {self.process}): step {self.step}, {self.phase}"


@dataclass(frozen=True)
class HangReport:
    """Who is to blame, whether they are beyond saying so themselves, and why in words."""

    ranks: tuple[int, ...]
    silent: bool
    text: str


def diagnose_hang(
    before: Mapping[int, Heartbeat],
    now: Mapping[int, Heartbeat],
    hosts: Sequence[str],
    seconds: float,
    setting: str = "train.hang_timeout",
) -> HangReport:
    """Compares what the ranks told some time ago and now. hosts: of all ranks.

    A rank whose number stands still is stopped, or its host is lost; a rank that never told anything counts
    as one. If all are alive, those furthest behind hold up the rest.
    """
    world_size = len(hosts)
    silent = [r for r in range(world_size) if r not in now or (r in before and before[r].number == now[r].number)]
    if silent:
        reason = "gives no sign of life: stopped, out of memory, or its host or network is gone"
        guilty = silent
    else:
        least = min(beat.entered for beat in now.values())
        guilty = [rank for rank, beat in sorted(now.items()) if beat.entered == least]
        reason = "hangs" if len(guilty) < world_size or world_size == 1 else "waits, as all do: the exchange hangs"
    lines = [f"no progress for {seconds:.0f} s ({setting})"]
    for rank in [*guilty, *sorted(set(now) - set(guilty))][:NAMED]:
        where = now[rank].text() if rank in now else f"rank {rank} on {hosts[rank]}"
        lines.append(f"  {where}  <- {reason}" if rank in guilty else f"  {where}, waits")
    if world_size > NAMED:
        lines.append(f"  and {world_size - NAMED} ranks more")
    return HangReport(tuple(guilty), bool(silent), "\n".join(lines))


class Watchdog:
    """Watches a process from a thread of its own, from entering the context to leaving it.

    timeout: seconds without a beat that count as a hang, None for no watching. hosts: of all ranks, one each.
    store: of the process group, None alone. log_file: gets message and stacks besides the error stream. workers:
    gives the process ids of loader workers, whose stacks are printed too. tell: gets the hang before the end.
    end: ends the process, with `ExitCode.HUNG`, whose exit code all who waited have. setting: where `timeout` is from.
    """

    def __init__(
        self,
        progress: Progress,
        timeout: float | None,
        *,
        rank: int = 0,
        hosts: Sequence[str] = ("localhost",),
        store: Any = None,
        log_file: Path | None = None,
        workers: Callable[[], Sequence[int]] = list,
        tell: Callable[[HangReport], None] = lambda _: None,
        end: Callable[[int], None] = os._exit,
        setting: str = "train.hang_timeout",
    ) -> None:
        self.progress, self.timeout, self.rank, self.hosts = progress, timeout, rank, hosts
        self.world_size = len(hosts)
        self.log_file, self.workers, self.tell, self.end = log_file, workers, tell, end
        self.setting = setting
        self._store = store
        self._interval = min(timeout / 8, 5.0) if timeout else 0.0
        self._mine: Any = None
        self._number = 0
        self._quit = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        if self.timeout:
            self._thread = threading.Thread(target=self._watch, name="detkit watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quit.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._backstop:
            faulthandler.cancel_dump_traceback_later()

    @property
    def _backstop(self) -> bool:
        return bool(self.timeout) and self.world_size > 1

    def _watch(self) -> None:
        assert self.timeout is not None
        # A connection of its own: the loop may be waiting in the group's.
        self._mine = self._store.clone() if self._store is not None else None
        idle, seen, last = 0.0, self.progress.ticks, time.monotonic()
        before: dict[int, Heartbeat] = {}
        while not self._quit.is_set():
            if self._backstop:
                # Native code that never lets Python run stops this thread too; that timer needs no Python.
                faulthandler.dump_traceback_later(2 * self.timeout + 10, exit=True, file=ERROR_STREAM)
            self._tell()
            self._quit.wait(self._interval)
            now = time.monotonic()
            # A process that was stopped, or a machine that slept, has not hung meanwhile.
            idle, last = idle + min(now - last, 2 * self._interval), now
            if self.progress.ticks != seen:
                idle, seen, before = 0.0, self.progress.ticks, {}
            elif idle >= self.timeout / 2 and not before:
                before = self._ask()
            elif idle >= self.timeout:
                self._tell()
                self._report(diagnose_hang(before, self._ask(), self.hosts, idle, self.setting))
                return

    def _own(self) -> Heartbeat:
        p = self.progress
        return Heartbeat(self.rank, socket.gethostname(), os.getpid(), self._number, p.step, p.phase, p.entered)

    def _tell(self) -> None:
        """Leaves word of this process."""
        self._number += 1
        text = json.dumps(asdict(self._own()))
        self._in_time(lambda store: store.set(f"detkit/beat/{self.rank}", text))

    def _ask(self) -> dict[int, Heartbeat]:
        """What every rank told last; those that told nothing are missing, and all whom the network keeps away."""
        beats: dict[int, Heartbeat] = {}

        def read(store: Any) -> None:
            for rank in set(range(self.world_size)) - {self.rank}:
                if store.check([f"detkit/beat/{rank}"]):
                    beats[rank] = Heartbeat(**json.loads(store.get(f"detkit/beat/{rank}")))

        self._in_time(read)
        return {**beats, self.rank: self._own()}

    def _in_time(self, work: Callable[[Any], None]) -> None:
        """Does something with the store. Where it is gone, or a cut cable keeps its answer away, one watches on
        for oneself."""
        if self._mine is None:
            return
        store = self._mine
        if not run_with_timeout(lambda: work(store), max(2 * self._interval, 2.0)):
            self._mine = None

    def _report(self, hang: HangReport) -> None:
        """Says it, prints stacks, ends the process."""
        faulthandler.cancel_dump_traceback_later()
        mine = self.rank in hang.ranks
        if not mine:
            time.sleep(PATIENCE)
        # The one to blame speaks; where it can't, the first of the others.
        others = set(range(self.world_size)) - set(hang.ranks)
        speaks = mine or (hang.silent and self.rank == min(others))
        if self._quit.is_set():
            return
        with contextlib.ExitStack() as stack:
            outputs: list[Any] = [ERROR_STREAM] if speaks else []
            if self.log_file is not None:
                outputs.append(stack.enter_context(self.log_file.open("ab", buffering=0)).fileno())
            for output in outputs:
                _write(output, f"error: {hang.text}\nstacks of rank {self.rank}:\n")
                faulthandler.dump_traceback(file=output, all_threads=True)
            if mine:
                self._end_workers()
            for output in outputs:
                _write(output, f"rank {self.rank} ends with exit code {ExitCode.HUNG:d}; go on with --resume\n")
        with contextlib.suppress(Exception):  # whatever happens, the process ends
            self.tell(hang)
        self.end(ExitCode.HUNG)

    def _end_workers(self) -> None:
        """Has loader workers print where they are, then kills them: their parent can't any more."""
        for number in (signal.SIGUSR1, signal.SIGKILL) if sys.platform != "win32" else ():
            for process in self.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            time.sleep(0.5)


def _write(output: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(output, text.encode())


def group_store() -> Any:
    """The store of the default process group, apart from its other keys; None without one."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return None
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"detkit/watchdog/{attempt}", _get_default_store())
