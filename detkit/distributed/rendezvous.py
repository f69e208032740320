"""The rendezvous of the machines of a run (torchelastic's c10d): its address, and what may go wrong with it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from detkit.distributed.launch_options import LaunchOptions
from detkit.distributed.network import wait_for_port
from detkit.utils.exit_codes import ExitCode
from detkit.utils.types import Tree

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler

    from detkit.distributed.agent import Agent

JOIN_SECONDS, CHECK_SECONDS = 900, 60
"""How long machines wait for each other, to train and for `--check`."""
LOST_SECONDS = 60.0
"""How long a machine goes without an answer from the rendezvous before it gives up."""
REPORT_SECONDS = 10.0
"""How long a machine may be missing, or an answer late, before it is reported."""
NEIGHBOUR_SECONDS = 15.0
"""How long a second launch on the machine of the rendezvous waits for the first one to open it."""
SIOCGIFADDR = 0x8915
"""Linux's request for the address of an interface."""


def rendezvous(options: LaunchOptions, address: str | None) -> RendezvousHandler:
    """torchelastic's c10d rendezvous; on one machine at a port that the system chooses, so that jobs never share it."""
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    # read_timeout: of each of the several questions that a machine asks before it gives up a lost rendezvous.
    settings: Tree = {"join_timeout": CHECK_SECONDS if options.check else JOIN_SECONDS, "read_timeout": 20}
    if options.rdzv and options.node_rank is not None:
        host, port = options.rdzv_address
        is_here = is_own_address(host, address, options.node_rank)
        # Two "machines" on one, as in a try at home: machine 0 hosts the rendezvous.
        is_host = is_here and (options.node_rank == 0 or wait_for_port(host, port, NEIGHBOUR_SECONDS) is not None)
        settings["is_host"] = is_host
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


def is_own_address(host: str, address: str | None, node_rank: int) -> bool:
    """Whether the rendezvous is on this machine; if the name can't be resolved, it is on machine 0."""
    try:
        return socket.gethostbyname(host) == address
    except OSError:
        return node_rank == 0


@contextlib.contextmanager
def watch_rendezvous(options: LaunchOptions, agent: Agent) -> Iterator[None]:
    """While the context is active, reports machines that are missing, and exits when the rendezvous is lost."""
    over = threading.Event()
    if options.max_nodes > 1:
        for action in (report_missing_nodes, exit_with_rendezvous):
            threading.Thread(target=action, args=(options, agent, over), daemon=True, name=action.__name__).start()
    try:
        yield
    finally:
        over.set()


def report_missing_nodes(options: LaunchOptions, agent: Agent, over: threading.Event) -> None:
    """Prints, until the workers start, how many machines have come and which have not."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(*options.rdzv_address, is_master=False, timeout=timedelta(seconds=60))
    numbered = options.node_rank is not None
    me = str(options.node_rank) if numbered else f"{socket.gethostname()}/{os.getpid()}"
    store.set(f"detkit/nodes/{me}", socket.gethostname())
    store.add("detkit/number_of_nodes", 1)
    wait = REPORT_SECONDS
    while not over.wait(wait) and not agent.started:
        here = min(store.add("detkit/number_of_nodes", 0), options.max_nodes)
        missing = [r for r in range(options.max_nodes) if not store.check([f"detkit/nodes/{r}"])]
        names = f"; missing: {', '.join(f'machine {r}' for r in missing)}" if numbered and missing else ""
        text = f"waiting at {options.rdzv} for {options.max_nodes} machines, {here} have joined{names}"
        print(text, file=sys.stderr, flush=True)
        wait = 3 * REPORT_SECONDS


def exit_with_rendezvous(options: LaunchOptions, agent: Agent, over: threading.Event) -> None:
    """Ends this process when the rendezvous, once reached, can't be reached for a minute.

    A machine that dies or a cable that is cut says nothing to the connection that the agent has, in which
    torch would wait for as long as the system tries: a quarter of an hour.
    """
    reached: float | None = None
    while not over.wait(LOST_SECONDS / 12):
        if reached is None and agent.started:  # by the agent, before this thread asked
            reached = time.monotonic()
        try:
            socket.create_connection(options.rdzv_address, timeout=LOST_SECONDS / 6).close()
            reached = time.monotonic()
        except OSError as error:
            if reached is not None and time.monotonic() - reached > LOST_SECONDS and not over.is_set():
                print(rendezvous_lost(options, error), file=sys.stderr, flush=True)
                os._exit(ExitCode.RANK_MISSING)  # the workers follow


def rendezvous_lost(options: LaunchOptions, reason: object) -> str:
    """The message for a rendezvous that is lost during a run."""
    return (
        f"error: --rdzv {options.rdzv} can't be reached from {socket.gethostname()} any more: {reason}. "
        "Restart all machines with --resume"
    )


def explain_rendezvous_error(error: Exception, options: LaunchOptions) -> str:
    """The message for machines that did not find each other."""
    from torch.distributed.elastic.rendezvous.api import RendezvousClosedError, RendezvousConnectionError

    if isinstance(error, RendezvousClosedError):
        return f"the run at {options.rdzv} has already ended: restart all machines"
    if isinstance(error, RendezvousConnectionError):
        cause = str(error.__cause__ or error)
        if "EADDRINUSE" in cause or "in use" in cause:
            return f"--rdzv {options.rdzv}: another program on {socket.gethostname()} has this port: choose another one"
        return (
            f"--rdzv {options.rdzv} can't be reached from {socket.gethostname()} within 60 s. Is the command started "
            "on that machine, is that its address as seen from here, does a firewall block the port?"
        )
    seconds = CHECK_SECONDS if options.check else JOIN_SECONDS
    return (
        f"timed out after {seconds} s: fewer than {options.min_nodes} machines have joined at {options.rdzv}. Is "
        "the command started on all of them, with the same --nodes and --rdzv?"
    )


def own_address(options: LaunchOptions) -> str | None:
    """This machine's address as the others see it: the given one, or the one from which packets reach `rdzv`."""
    if options.local_addr:
        return options.local_addr
    if not options.rdzv:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(options.rdzv_address)  # sends nothing
        except OSError as error:
            raise ValueError(
                f"--rdzv {options.rdzv}: {error}; must be a name or address that this machine can resolve"
            ) from None
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address, e.g. eth0; None if the system doesn't report it."""
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
