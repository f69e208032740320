"""The process group of torch.distributed, and the device of each rank."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import torch
import torch.distributed as dist

from detkit.distributed.coordinator import COLLECTIVE_TIMEOUT, Coordinator
from detkit.distributed.failure import describe_error
from detkit.distributed.process_info import ProcessInfo


@contextlib.contextmanager
def process_group(coordinator: Coordinator, device: torch.device) -> Iterator[str]:
    """Yields the backend, nccl or gloo, of a process group that is up while the context is active; "none" if alone."""
    process = coordinator.process
    if not process.is_worker:
        yield "none"
        return
    on_gpu = device.type == "cuda"
    backend = "nccl" if on_gpu else "gloo"
    one_machine = len(set(coordinator.hosts)) == 1 and process.local_world_size == process.world_size
    if one_machine and "lo" in [name for _, name in socket.if_nameindex()]:
        # gloo looks up the host's own name otherwise, which need not lead anywhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        with coordinator.connect_watchdog("connecting"):
            dist.init_process_group(
                backend,
                store=coordinator.group_store(),
                rank=process.rank,
                world_size=process.world_size,
                timeout=COLLECTIVE_TIMEOUT,
                device_id=device if on_gpu else None,
            )
        yield backend
        dist.barrier()
    except (Exception, SystemExit) as error:
        # Before the connections go, so that the others learn of the cause before they miss this rank.
        coordinator.report_failure(describe_error(error, process))
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def device_of(process: ProcessInfo, on_gpu: bool) -> torch.device:
    """The device of a rank: its GPU by local rank, or the CPU. Raises ValueError if there are too few GPUs."""
    if not on_gpu:
        return torch.device("cpu")
    if not process.is_worker:
        return torch.device("cuda")
    count = torch.cuda.device_count()
    # srun and mpirun may show every process its own GPU and no other.
    one_visible = count == 1 and process.launcher in ("slurm", "mpi")
    if process.local_world_size > count and not one_visible:
        raise ValueError(
            f"{process.local_world_size} processes on {socket.gethostname()}, which has {count} GPUs: "
            f"start {count} processes there, or use train.device=cpu"
        )
    device = torch.device("cuda", 0 if one_visible else process.local_rank)
    torch.cuda.set_device(device)
    return device
