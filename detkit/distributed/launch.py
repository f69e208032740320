"""`detkit train --procs`: torchelastic's agent, in this process, starts the workers, watches and restarts them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from detkit.distributed.failure import run_with_timeout
from detkit.distributed.process_info import PARENT
from detkit.utils.exit_codes import ExitCode, stopped_by

JOIN_SECONDS, CHECK_SECONDS = 900, 60
"""How long machines wait for each other, to train and for `--check`."""
LOST_SECONDS = 60.0
"""Without an answer from the meeting point, after which a machine gives up."""
TELL_SECONDS = 10.0
"""After which the first word comes about a machine that isn't there, or has gone."""
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
SIOCGIFADDR = 0x8915
"""Linux's request for the address of an interface."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """procs: processes on this machine. min_nodes, max_nodes: machines with which the run goes on, and at
    most. node_rank: number of this machine; 0 is the one that `rdzv` names. rdzv: host:port where the
    machines meet; one machine needs none. max_restarts: of all workers after a failure. local_addr: this
    machine's address as the others see it. threads: `train.threads`. on_gpu: one GPU for each process.
    check: only the preflight.
    """

    procs: int = 1
    min_nodes: int = 1
    max_nodes: int = 1
    node_rank: int | None = None
    rdzv: str | None = None
    max_restarts: int = 3
    local_addr: str | None = None
    threads: int | None = None
    on_gpu: bool = False
    check: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--procs", self.procs, 1), ("--nodes", self.min_nodes, 1), ("--max-restarts", self.max_restarts, 0),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name} {value}: at least {least}")
        if self.procs > (most := max(64, 8 * usable_cores())):
            raise ValueError(f"--procs {self.procs}: at most {most} on {usable_cores()} CPU cores")
        if self.max_nodes < self.min_nodes:
            raise ValueError(f"--nodes {self.min_nodes}:{self.max_nodes}: the first number is the larger one")
        if self.max_nodes > 1 and not self.rdzv:
            raise ValueError(
                f"--nodes {self.max_nodes} needs --rdzv HOST:PORT on every machine: the address of one of them, "
                "and a port that is free there"
            )
        if self.rdzv:
            host, _, port = self.rdzv.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"--rdzv {self.rdzv}: want HOST:PORT, e.g. 10.0.0.1:29400")
        if self.node_rank is not None and not 0 <= self.node_rank < self.max_nodes:
            raise ValueError(f"--node-rank {self.node_rank}: {self.max_nodes} machines are numbered from 0")


def launch(arguments: Sequence[str], options: LaunchOptions) -> int:
    """Runs `detkit ARGUMENTS` in all the processes; gives back the exit code of the run."""
    check_devices(options)
    with environment_kept():
        address = own_address(options)
        prepare_environment(options, address)
        return run_agent(arguments, options, address)


def run_agent(arguments: Sequence[str], options: LaunchOptions, address: str | None) -> int:
    """Meets the other machines, runs the workers to their end, and tells what went wrong."""
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    from detkit.distributed.agent import Agent

    quiet_torchelastic()
    with tempfile.TemporaryDirectory(prefix="detkit_launch_") as folder:
        try:
            handler = rendezvous(options, address)
            spec = WorkerSpec(
                role="detkit",
                local_world_size=options.procs,
                entrypoint=sys.executable,
                # The agent replaces ${local_rank} in arguments, and with it $$.
                args=tuple(word.replace("$", "$$") for word in ("-m", "detkit.cli", *arguments)),
                rdzv_handler=handler,
                max_restarts=options.max_restarts,
                monitor_interval=0.1,
                local_addr=address,
            )
            agent = Agent(spec, folder, store=options.rdzv)
            with report_missing_nodes(options, agent), watch_rendezvous(options, agent):
                result = agent.run()
        except SignalException as error:
            # The rendezvous stays open: the other machines may go on without this one.
            return stopped_by(int(error.sigval))
        except (RendezvousError, TimeoutError) as error:
            print(f"error: {explain_rendezvous_error(error, options)}", file=sys.stderr, flush=True)
            return ExitCode.RANK_MISSING
        if not run_with_timeout(handler.shutdown, TELL_SECONDS):
            print(rendezvous_lost(options, f"no answer within {TELL_SECONDS:.0f} s"), file=sys.stderr, flush=True)
        if result is None:
            print("error: the other machines have ended the run", file=sys.stderr, flush=True)
            return ExitCode.RANK_MISSING
        return agent.tell(result) if result.is_failed() else 0


def rendezvous(options: LaunchOptions, address: str | None) -> Any:
    """Torchelastic's c10d rendezvous: on one machine at a port that the system chooses, so that no two meet."""
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    # read_timeout: of each of the several questions that a machine asks before it gives up a lost meeting point.
    settings: dict[str, Any] = {"join_timeout": CHECK_SECONDS if options.check else JOIN_SECONDS, "read_timeout": 20}
    if options.rdzv and options.node_rank is not None:
        host, _, port = options.rdzv.rpartition(":")
        own = is_own_address(host, address, options.node_rank)
        # Two "machines" on one, as in a try at home: machine 0 keeps the meeting point.
        settings["is_host"] = own and (options.node_rank == 0 or not answers_soon(host, int(port)))
    several = options.max_nodes > 1
    return get_rendezvous_handler(
        RendezvousParameters(
            backend="c10d",
            endpoint=options.rdzv or "localhost:0",
            run_id=os.environ.get("SLURM_JOB_ID", "detkit") if several else uuid.uuid4().hex,
            min_nodes=options.min_nodes,
            max_nodes=options.max_nodes,
            local_addr=address,
            **settings,
        )
    )


def answers_soon(host: str, port: int) -> bool:
    """Whether something listens there within some seconds."""
    deadline = time.monotonic() + NEIGHBOUR_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return True
        except OSError:
            time.sleep(0.2)
    return False


NEIGHBOUR_SECONDS = 15.0


def is_own_address(host: str, address: str | None, node_rank: int) -> bool:
    """Whether the meeting point is on this machine; where names don't tell, it is on machine 0."""
    try:
        return socket.gethostbyname(host) == address
    except OSError:
        return node_rank == 0


@contextlib.contextmanager
def report_missing_nodes(options: LaunchOptions, agent: Any) -> Iterator[None]:
    """Meanwhile, says which machines are not there yet, until the workers are started."""
    if options.max_nodes == 1:
        yield
        return
    over = threading.Event()

    def tell() -> None:
        import torch.distributed as dist

        host, _, port = (options.rdzv or "").rpartition(":")
        store: Any = dist.TCPStore(  # type: ignore[attr-defined]
            host, int(port), is_master=False, timeout=timedelta(seconds=60)
        )
        numbered = options.node_rank is not None
        me = str(options.node_rank) if numbered else f"{socket.gethostname()}/{os.getpid()}"
        store.set(f"detkit/nodes/{me}", socket.gethostname())
        store.add("detkit/number_of_nodes", 1)
        wait = TELL_SECONDS
        while not over.wait(wait) and not agent.started:
            here = min(store.add("detkit/number_of_nodes", 0), options.max_nodes)
            missing = [r for r in range(options.max_nodes) if not store.check([f"detkit/nodes/{r}"])]
            names = f"; not yet: {', '.join(f'machine {r}' for r in missing)}" if numbered and missing else ""
            words = f"waiting at {options.rdzv} for {options.max_nodes} machines, {here} came{names}"
            print(words, file=sys.stderr, flush=True)
            wait = 3 * TELL_SECONDS

    thread = threading.Thread(target=tell, daemon=True, name="report-missing-nodes")
    thread.start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def watch_rendezvous(options: LaunchOptions, agent: Any) -> Iterator[None]:
    """Meanwhile, ends this process when the meeting point, once reached, can't be reached for a minute.

    A machine that dies or a cable that is cut says nothing to the connection that the agent has, in which
    torch would wait for as long as the system tries: a quarter of an hour.
    """
    over = threading.Event()

    def watch() -> None:
        host, _, port = (options.rdzv or "").rpartition(":")
        reached: float | None = None
        while not over.wait(LOST_SECONDS / 12):
            if reached is None and agent.started:  # by the agent, before this thread asked
                reached = time.monotonic()
            try:
                socket.create_connection((host, int(port)), timeout=LOST_SECONDS / 6).close()
                reached = time.monotonic()
            except OSError as error:
                if reached is not None and time.monotonic() - reached > LOST_SECONDS and not over.is_set():
                    print(rendezvous_lost(options, error), file=sys.stderr, flush=True)
                    os._exit(ExitCode.RANK_MISSING)  # the workers follow

    if options.max_nodes > 1:
        threading.Thread(target=watch, daemon=True, name="watch-rendezvous").start()
    try:
        yield
    finally:
        over.set()


def rendezvous_lost(options: LaunchOptions, reason: object) -> str:
    """In words, that the meeting point has gone in the middle of a run."""
    return (
        f"error: --rdzv {options.rdzv} can't be reached from {socket.gethostname()} any more: {reason}. "
        "Start all machines again, with --resume"
    )


def explain_rendezvous_error(error: Exception, options: LaunchOptions) -> str:
    """In words, why the machines didn't meet."""
    from torch.distributed.elastic.rendezvous.api import RendezvousClosedError, RendezvousConnectionError

    if isinstance(error, RendezvousClosedError):
        return f"the run at {options.rdzv} has ended already: start all machines again"
    if isinstance(error, RendezvousConnectionError):
        cause = str(error.__cause__ or error)
        if "EADDRINUSE" in cause or "in use" in cause:
            return f"--rdzv {options.rdzv}: another program on {socket.gethostname()} has this port: choose another one"
        return (
            f"--rdzv {options.rdzv} can't be reached from {socket.gethostname()} within 60 s. Is the command started "
            "on that machine, is that its address as seen from here, does a firewall close the port?"
        )
    seconds = CHECK_SECONDS if options.check else JOIN_SECONDS
    return (
        f"after {seconds} s fewer than {options.min_nodes} machines have come to {options.rdzv}: is the command "
        "started on all of them, with the same --nodes and --rdzv?"
    )


def check_devices(options: LaunchOptions) -> None:
    """Refuses more processes than GPUs; warns of more than CPU cores."""
    if options.on_gpu:
        import torch

        count = torch.cuda.device_count()
        if options.procs > count:
            raise ValueError(
                f"--procs {options.procs}: this machine has {count} GPU{'s' * (count != 1)}, and each process needs "
                f"its own; use --procs {count}, or train.device=cpu"
            )
        return
    cores = usable_cores()
    wanted = options.procs * (options.threads or 1)
    if wanted > cores:
        threads = f" of {options.threads} threads" if options.threads else ""
        print(
            f"warning: --procs {options.procs}{threads} on {cores} CPU cores: they will take turns and be slower than "
            f"{max(1, cores // (options.threads or 1))} would",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def prepare_environment(options: LaunchOptions, address: str | None) -> None:
    """What the workers inherit: threads shared out, network interface, who started them."""
    if options.threads is None and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // options.procs))
    os.environ[PARENT] = str(os.getpid())
    # With it, a machine that becomes rank 0 after a failure would look for a store that died with the old one.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # Under nohup; torchelastic would end the run with the terminal all the same.
        os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    interface = interface_of(address) if address and options.max_nodes > 1 else None
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if options.local_addr:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def quiet_torchelastic() -> None:
    """What torchelastic says of failures is said here in fewer words; LOGLEVEL=INFO brings it back."""
    if "LOGLEVEL" in os.environ:
        return
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Puts environment variables and signal handlers back."""
    variables, handlers = dict(os.environ), {s: signal.getsignal(s) for s in HANDLED}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_address(options: LaunchOptions) -> str | None:
    """This machine's address as the others see it: as stated, or the one from which packets reach `rdzv`."""
    if options.local_addr:
        return options.local_addr
    if not options.rdzv:
        return "127.0.0.1"
    host, _, port = options.rdzv.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))  # sends nothing
        except OSError as error:
            raise ValueError(
                f"--rdzv {options.rdzv}: {error}; want a name or address that this machine knows"
            ) from None
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address, e.g. eth0; None where the system doesn't tell."""
    try:
        import fcntl
    except ImportError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                packed = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(packed[20:24]) == address:
                return name
    return None
