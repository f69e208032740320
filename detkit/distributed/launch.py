"""`detkit train --procs`: runs the agent that starts, watches and restarts the workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

from detkit.distributed.launch_options import LaunchOptions
from detkit.distributed.network import run_with_timeout
from detkit.distributed.process_info import PARENT
from detkit.distributed.rendezvous import (
    REPORT_SECONDS,
    explain_rendezvous_error,
    interface_of,
    own_address,
    rendezvous,
    rendezvous_lost,
    watch_rendezvous,
)  # fmt: skip
from detkit.utils.cores import usable_cores
from detkit.utils.exit_codes import ExitCode, stopped_by

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def launch(arguments: Sequence[str], options: LaunchOptions) -> int:
    """Runs `detkit ARGUMENTS` in all the processes; returns the exit code of the run."""
    check_devices(options)
    with restored_environment():
        address = own_address(options)
        prepare_environment(options, address)
        return run_agent(arguments, options, address)


def run_agent(arguments: Sequence[str], options: LaunchOptions, address: str | None) -> int:
    """Joins the other machines, runs the workers to their end, and prints what went wrong."""
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
            with watch_rendezvous(options, agent):
                result = agent.run()
        except SignalException as error:
            # The rendezvous stays open: the other machines may continue without this one.
            return stopped_by(int(error.sigval))
        except (RendezvousError, TimeoutError) as error:
            print(f"error: {explain_rendezvous_error(error, options)}", file=sys.stderr, flush=True)
            return ExitCode.RANK_MISSING
        if not run_with_timeout(handler.shutdown, REPORT_SECONDS):
            print(rendezvous_lost(options, f"no answer within {REPORT_SECONDS:.0f} s"), file=sys.stderr, flush=True)
        if result is None:
            print("error: the run was ended by another node", file=sys.stderr, flush=True)
            return ExitCode.RANK_MISSING
        return agent.report(result) if result.is_failed() else 0


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
            f"warning: --procs {options.procs}{threads} on {cores} CPU cores: oversubscribed, expect it to be slower "
            f"than --procs {max(1, cores // (options.threads or 1))}",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def prepare_environment(options: LaunchOptions, address: str | None) -> None:
    """Sets what the workers inherit: their share of the cores, the network interface, the launcher's pid."""
    if options.threads is None and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // options.procs))
    os.environ[PARENT] = str(os.getpid())
    # With it, a machine that becomes rank 0 after a failure would look for a store that died with the old one.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # Under nohup; torchelastic would end the run with the terminal nevertheless.
        os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    interface = interface_of(address) if address and options.max_nodes > 1 else None
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if options.local_addr:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def quiet_torchelastic() -> None:
    """Silences torchelastic's messages on failures, which detkit prints in fewer words. LOGLEVEL=INFO shows them."""
    if "LOGLEVEL" in os.environ:
        return
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def restored_environment() -> Iterator[None]:
    """Restores environment variables and signal handlers after the context."""
    variables, handlers = dict(os.environ), {s: signal.getsignal(s) for s in HANDLED}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
