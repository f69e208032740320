"""How the processes of a run meet: first at a key-value store, where a missing one is named, then as a group."""

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
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from detkit.distributed.environment import NAMES, Place
from detkit.distributed.failure import (
    HUNG,
    MissingRankError,
    Note,
    PeerFailedError,
    describe,
    in_time,
    write_error_file,
)
from detkit.distributed.pulse import Pulse
from detkit.distributed.watchdog import Watchdog

log = logging.getLogger("detkit")

JOIN_SECONDS = 60.0
"""After which a rank that isn't there is named and the run ends."""
LEAVE_SECONDS = 10.0
CONNECT = "DETKIT_CONNECT_SECONDS"
"""Without progress while the ranks connect, after which the one that holds them up is named (45)."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""What rank 0 may do while the others wait for it."""
TCPStore: Any = dist.TCPStore  # type: ignore[attr-defined]
PrefixStore: Any = dist.PrefixStore  # type: ignore[attr-defined]
FAILURE, STARTED = "failure", "started"

T = TypeVar("T")


class Meeting:
    """The place where the processes of a run leave word for each other. Alone, there is no one to tell."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.hosts = [socket.gethostname() if rank == place.rank else "" for rank in range(place.world_size)]
        self._store: Any = None
        self._run: Any = None
        self._posted: Note | None = None
        self._firsts = 0

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Connects and calls the roll. Raises MissingRankError that names who isn't there after `seconds`."""
        place = self.place
        if not place.is_worker:
            return
        deadline = time.monotonic() + seconds
        base = self._connect(seconds)
        self._run = PrefixStore(f"detkit/{place.run_id}", base)
        self._store = PrefixStore(f"round/{place.round}", self._run)
        if place.parent is not None:
            follow_parent(place.parent)
        facts = {"host": socket.gethostname(), "world_size": place.world_size, "launcher": NAMES[place.launcher]}
        found = self.gather("here", facts, max(deadline - time.monotonic(), min(seconds, 10.0)))
        self.hosts = [f["host"] for f in found]
        for rank, other in enumerate(found):
            if other["world_size"] != place.world_size:
                raise ValueError(
                    f"rank {rank} on {other['host']} was started as one of {other['world_size']} processes, rank "
                    f"{place.rank} on {facts['host']} as one of {place.world_size}: start all alike"
                )

    def gather(self, name: str, value: Any, seconds: float = JOIN_SECONDS, doing: str = "start") -> list[Any]:
        """Everyone's value under a name, by rank; JSON. Names the ranks that don't bring theirs in time."""
        if self._store is None:
            return [value]
        self._store.set(f"{name}/{self.place.rank}", json.dumps(value))
        missing = list(range(self.place.world_size))
        deadline, warn_at = time.monotonic() + seconds, time.monotonic() + JOIN_SECONDS / 2
        while missing := [rank for rank in missing if not self._store.check([f"{name}/{rank}"])]:
            self._raise_if_a_peer_failed()
            now = time.monotonic()
            if now > deadline:
                raise MissingRankError(f"after {seconds:.0f} s still no word from {self.names(missing)} ({doing})")
            if now > warn_at and self.place.rank == min(set(range(self.place.world_size)) - set(missing)):
                log.warning("waiting for %s (%s)", self.names(missing), doing)
                warn_at += JOIN_SECONDS / 2
            time.sleep(0.05)
        keys = [f"{name}/{rank}" for rank in range(self.place.world_size)]
        return [json.loads(text) for text in self._store.multi_get(keys)]

    def first(self, work: Callable[[], T]) -> T | None:
        """Rank 0 does something that no other may do at the same time; the others wait for it.

        They get None; what rank 0 raises, ends them too.
        """
        done = work() if self.place.rank == 0 else None
        self._firsts += 1
        self.gather(f"first/{self._firsts}", True, COLLECTIVE_TIMEOUT.total_seconds(), "rank 0 prepares the run")
        return done

    def names(self, ranks: list[int]) -> str:
        """`rank 2 on node b, rank 3`: hosts where they are known."""
        return ", ".join(f"rank {rank}" + (f" on {self.hosts[rank]}" if self.hosts[rank] else "") for rank in ranks)

    def post(self, note: Note) -> Note:
        """Leaves word of this process's failure; gives back the note of the run's first one."""
        if self._store is None:
            return note
        if self._posted is None:
            kept: list[str] = []
            # compare_set keeps what is there: the first failure stays the first.
            in_time(lambda: kept.append(self._store.compare_set(FAILURE, "", note.to_json()).decode()), LEAVE_SECONDS)
            # Without an answer the store has gone with the process that kept it; then this one speaks for itself.
            self._posted = Note(**json.loads(kept[0])) if kept else note
        return self._posted

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

    def watched(self, what: str) -> Watchdog:
        """A watchdog over what all ranks do together before they train, under a name of its own."""
        store = None if self._store is None else PrefixStore(f"watch/{what}", self._store)
        return Watchdog(
            Pulse(phase=what), connect_seconds() if store is not None else None, rank=self.place.rank,
            hosts=self.hosts, store=store, tell=lambda finding: hung(self, finding.guilty, finding.text),
            setting=CONNECT,
        )  # fmt: skip

    def _raise_if_a_peer_failed(self) -> None:
        if self._store.check([FAILURE]):
            note = Note(**json.loads(self._store.get(FAILURE)))
            raise PeerFailedError(note.short())

    def leave(self, seconds: float = LEAVE_SECONDS) -> None:
        """After a failure: the process that keeps the store stays until the others have read whose it was."""
        if self._store is None:
            return

        def wait() -> None:
            gone, deadline = self._store.add("gone", 1), time.monotonic() + seconds
            while self.place.hosts_store and gone < self.place.world_size and time.monotonic() < deadline:
                time.sleep(0.05)
                gone = self._store.add("gone", 0)

        in_time(wait, seconds + 1)  # without an answer its keeper has gone, and nobody waits

    def _connect(self, seconds: float) -> Any:
        """The store of all rounds, kept by this process or reached within `seconds`."""
        place, here = self.place, socket.gethostname()
        host, _, port = place.store.rpartition(":")
        reason: Exception | None = None if place.hosts_store else reach(host, int(port), seconds)
        if reason is None:
            try:
                wait = timedelta(seconds=max(seconds, 1.0))
                return TCPStore(host, int(port), None, place.hosts_store, wait, wait_for_workers=False)
            except (dist.DistError, RuntimeError) as error:
                reason = error
        if not place.hosts_store:
            raise MissingRankError(
                f"can't reach rank 0 at {place.store} within {seconds:.0f} s ({reason}). Is rank 0 started, is that "
                "its address as seen from here, does a firewall close the port?"
            ) from None
        if "EADDRINUSE" in str(reason) or "in use" in str(reason):
            raise MissingRankError(
                f"another program on {here} has port {port}: set MASTER_PORT, on every rank, to a free one"
            ) from None
        raise MissingRankError(
            f"rank 0 can't listen at {place.store}: {reason}. Is MASTER_ADDR an address of {here}, where rank 0 runs?"
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


def reach(host: str, port: int, seconds: float) -> OSError | None:
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


@contextlib.contextmanager
def process_group(meeting: Meeting, device: torch.device) -> Iterator[str]:
    """Meanwhile torch.distributed is up: nccl for GPUs, gloo for CPUs. Alone it stays down. Yields the backend."""
    place = meeting.place
    if not place.is_worker:
        yield "none"
        return
    on_gpu = device.type == "cuda"
    backend = "nccl" if on_gpu else "gloo"
    one_machine = len(set(meeting.hosts)) == 1 and place.local_world_size == place.world_size
    if one_machine and "lo" in [name for _, name in socket.if_nameindex()]:
        # gloo looks up the host's own name otherwise, which need not lead anywhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        with meeting.watched("connecting"):
            dist.init_process_group(
                backend,
                store=meeting.group_store(),
                rank=place.rank,
                world_size=place.world_size,
                timeout=COLLECTIVE_TIMEOUT,
                device_id=device if on_gpu else None,
            )
        yield backend
        dist.barrier()
    except (Exception, SystemExit) as error:
        # Before the connections go, so that the others learn of the cause before they miss this rank.
        meeting.post(describe(error, place))
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def device_of(place: Place, on_gpu: bool) -> torch.device:
    """The device of a rank: its GPU by local rank, or the CPU. Raises ValueError where GPUs are too few."""
    if not on_gpu:
        return torch.device("cpu")
    if not place.is_worker:
        return torch.device("cuda")
    count = torch.cuda.device_count()
    # srun and mpirun may show every process a GPU of its own and no other.
    bound = count == 1 and place.launcher in ("slurm", "mpi")
    if place.local_world_size > count and not bound:
        raise ValueError(
            f"{place.local_world_size} processes on {socket.gethostname()}, which has {count} GPUs: "
            f"start {count} processes there, or use train.device=cpu"
        )
    device = torch.device("cuda", 0 if bound else place.local_rank)
    torch.cuda.set_device(device)
    return device


def follow_parent(parent: int) -> None:
    """Ends this process in good order when the process that launched it is gone, so that none is left over."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="follow-parent").start()


def hung(meeting: Meeting, guilty: Sequence[int], text: str) -> None:
    """Leaves word that ranks hang, for the other processes and the agent; in place of those that can't."""
    host = meeting.hosts[guilty[0]] if guilty else socket.gethostname()
    note = Note(rank=guilty[0], host=host, code=HUNG, kind="crash", text=text)
    first = meeting.post(note)
    write_error_file(first, own=meeting.place.rank in guilty)
