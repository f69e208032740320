"""Rank, world size and store address of this process, read from the environment that its launcher set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Launcher = Literal["alone", "detkit", "torchrun", "slurm", "mpi"]

STORE, ROUND, PARENT = "DETKIT_STORE", "DETKIT_ROUND", "DETKIT_PARENT"
"""Variables that `detkit train --procs` sets for its workers: host:port of the store, the round, the launcher's pid."""

PORTS = range(15000, 30000)
"""Ports below the range that systems hand out by themselves."""

MPI_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
"""Variables of rank, size, and both on this machine: Open MPI's, and those of MPICH, Intel MPI and srun."""


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """One process of a run.

    rank, world_size: over all machines. local_rank, local_world_size: on this machine. node_rank: index of the
    machine. launcher: what started the process. store: host:port of the run's key-value store. hosts_store:
    whether this process opens that port. round: the same for all processes that were started together.
    run_id: the same over restarts. parent: process id of the launcher, with which this process ends.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    launcher: Launcher = "alone"
    store: str = ""
    hosts_store: bool = False
    round: str = "0"
    run_id: str = "detkit"
    parent: int | None = None

    @property
    def is_worker(self) -> bool:
        """Whether a launcher started this process as a rank of a run."""
        return self.launcher != "alone"

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size}, started by {NAMES[self.launcher]}"


NAMES: dict[Launcher, str] = {
    "alone": "standalone",
    "detkit": "detkit train --procs",
    "torchrun": "torchrun",
    "slurm": "srun",
    "mpi": "mpirun",
}


def find_process_info(environ: Mapping[str, str]) -> ProcessInfo:
    """Reads the variables of torchrun (or our own agent), mpirun or srun; a process without them is alone.

    The innermost launcher counts: torchrun under srun is torchrun. Raises ValueError for variables that
    are missing, impossible, or contradict each other.
    """
    slurm, mpi = from_slurm(environ), from_mpi(environ)
    if "RANK" in environ or "WORLD_SIZE" in environ:
        process = from_torchrun(environ)
        if "TORCHELASTIC_RUN_ID" not in environ:
            for other in (slurm, mpi):
                refuse_difference(process, "RANK and WORLD_SIZE", other)
    elif mpi is not None:
        # mpirun sets its OMPI_ variables under srun, too; PMI_ ones may be srun's and must agree with it.
        if "OMPI_COMM_WORLD_RANK" not in environ:
            refuse_difference(mpi, "PMI_RANK and PMI_SIZE", slurm)
        process = slurm if slurm and same_rank(slurm, mpi) else mpi
    else:
        process = slurm or ProcessInfo()
    check_range(process)
    return process


def from_torchrun(environ: Mapping[str, str]) -> ProcessInfo:
    """Reads RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT (and LOCAL_RANK, LOCAL_WORLD_SIZE), as torchrun sets them."""
    needed = ["RANK", "WORLD_SIZE"] + ([] if STORE in environ else ["MASTER_ADDR", "MASTER_PORT"])
    missing = [name for name in needed if name not in environ]
    if missing:
        present = ", ".join(n for n in needed if n in environ)
        raise ValueError(
            f"the environment has {present} but not {', '.join(missing)}: a launcher sets all of them. "
            f"Unset {present} to train in one process, or start with torchrun or `detkit train --procs`"
        )
    rank, world_size = number(environ, "RANK"), number(environ, "WORLD_SIZE")
    restarts = number(environ, "TORCHELASTIC_RESTART_COUNT", 0)
    if "LOCAL_RANK" not in environ and world_size > 1:
        raise ValueError("the environment has RANK but not LOCAL_RANK, which chooses the device: set it")
    by_detkit = STORE in environ
    agent_store = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return ProcessInfo(
        rank=rank,
        world_size=world_size,
        local_rank=number(environ, "LOCAL_RANK", 0),
        local_world_size=number(environ, "LOCAL_WORLD_SIZE", world_size),
        node_rank=number(environ, "GROUP_RANK", 0),
        launcher="detkit" if by_detkit else "torchrun",
        store=environ[STORE] if by_detkit else f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}",
        hosts_store=not by_detkit and not agent_store and rank == 0,
        round=environ.get(ROUND, str(restarts)),
        run_id=environ.get("TORCHELASTIC_RUN_ID", "detkit"),
        parent=number(environ, PARENT) if PARENT in environ else None,
    )


def from_slurm(environ: Mapping[str, str]) -> ProcessInfo | None:
    """Reads the variables of a task of a job step (`srun`) of more than one task.

    A batch script has SLURM_NTASKS too, but is one process: only the variables of a step count.
    """
    if "SLURM_STEP_ID" not in environ or number(environ, "SLURM_STEP_NUM_TASKS", 1) == 1:
        return None
    rank, nodes = number(environ, "SLURM_PROCID"), number(environ, "SLURM_STEP_NUM_NODES", 1)
    node_rank = number(environ, "SLURM_NODEID", 0)
    world_size = number(environ, "SLURM_STEP_NUM_TASKS")
    on_nodes = tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""), world_size, nodes)
    listed = environ.get("SLURM_STEP_NODELIST", "")
    host = environ.get("MASTER_ADDR") or ("127.0.0.1" if nodes == 1 else first_host(listed))
    job = f"{environ.get('SLURM_JOB_ID', '')}.{environ['SLURM_STEP_ID']}"
    reserved = re.match(r"\d+", environ.get("SLURM_STEP_RESV_PORTS", ""))
    port = environ.get("MASTER_PORT") or (reserved[0] if reserved else port_of(job))
    restarts = number(environ, "SLURM_RESTART_COUNT", 0)
    return ProcessInfo(
        rank=rank,
        world_size=world_size,
        local_rank=number(environ, "SLURM_LOCALID"),
        local_world_size=on_nodes[node_rank] if node_rank < len(on_nodes) else world_size,
        node_rank=node_rank,
        launcher="slurm",
        store=f"{host}:{port}",
        hosts_store=rank == 0,
        round=str(restarts),
        run_id=f"slurm-{job}",
    )


def from_mpi(environ: Mapping[str, str]) -> ProcessInfo | None:
    """Reads the variables of `mpirun -n N` (Open MPI, MPICH, Intel MPI), N > 1."""
    names = next((n for n in MPI_VARIABLES if n[0] in environ and number(environ, n[1], 1) > 1), None)
    if names is None:
        return None
    rank, world_size = number(environ, names[0]), number(environ, names[1])
    local = number(environ, names[3], world_size)
    host = environ.get("MASTER_ADDR") or ("127.0.0.1" if local == world_size else "")
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid") or environ.get("PMI_ID", "")
    return ProcessInfo(
        rank=rank,
        world_size=world_size,
        local_rank=number(environ, names[2], rank % local),
        local_world_size=local,
        node_rank=rank // local,
        launcher="mpi",
        store=f"{host}:{environ.get('MASTER_PORT') or port_of(job)}",
        hosts_store=rank == 0,
        run_id=f"mpi-{job}",
    )


def check_range(process: ProcessInfo) -> None:
    """Raises ValueError for an impossible rank or a store without a usable address."""
    launcher = NAMES[process.launcher]
    ranks = ("rank", process.rank, process.world_size), ("local rank", process.local_rank, process.local_world_size)
    for name, rank, size in ranks:
        if not 0 <= rank < size:
            raise ValueError(f"{launcher} sets {name} {rank} of {size}: must be between 0 and {size - 1}")
    if not process.is_worker:
        return
    host, _, port = process.store.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"{launcher} sets the address {host or 'of rank 0'}, port {port!r}: "
            "MASTER_PORT must be between 1 and 65535, the same on every rank"
        )
    if not host:
        raise ValueError(
            f"{launcher} started processes on several machines without the address of rank 0: "
            "set MASTER_ADDR to it for all of them (mpirun -x MASTER_ADDR)"
        )


def refuse_difference(process: ProcessInfo, names: str, other: ProcessInfo | None) -> None:
    """Raises ValueError if two launchers set different ranks."""
    if other is not None and not same_rank(process, other):
        raise ValueError(
            f"two launchers disagree: {names} set rank {process.rank} of {process.world_size}, "
            f"{NAMES[other.launcher]} sets rank {other.rank} of {other.world_size}; unset the variables of one"
        )


def same_rank(a: ProcessInfo, b: ProcessInfo) -> bool:
    """Whether rank and world size are equal."""
    return (a.rank, a.world_size) == (b.rank, b.world_size)


def launcher_node_rank(process: ProcessInfo, nodes: int) -> int:
    """The node rank of a process that launches others (--procs, --nodes); ValueError for a rank of a run."""
    if not process.is_worker:
        return 0
    if process.launcher not in ("slurm", "mpi") or process.local_world_size != 1 or process.world_size != nodes:
        raise ValueError(
            f"this process is already {process}: remove --procs and --nodes, or start one process per machine "
            "and set --nodes to the number of machines"
        )
    return process.rank


def number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable as a whole number >= 0."""
    text = environ.get(name, "")
    if not text and default is not None:
        return default
    if not text:
        raise ValueError(f"the environment variable {name} is missing: a launcher sets it with the others")
    if not text.isdecimal():
        raise ValueError(f"the environment variable {name} is {text!r}: must be a whole number")
    return int(text)


def port_of(job: str) -> int:
    """A port made of the job's id, so that all its processes know it and other jobs are unlikely to have the same."""
    return PORTS[int.from_bytes(hashlib.sha256(job.encode()).digest()[:4], "little") % len(PORTS)]


def first_host(listed: str) -> str:
    """`gpu[03-05,9],cpu1` -> gpu03."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", listed)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0]) if first else ""


def tasks_per_node(text: str, world_size: int, nodes: int) -> list[int]:
    """`4(x2),3` -> [4, 4, 3]; an even share if the text is empty."""
    runs = [(int(count), int(times or 1)) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)]
    return [count for count, times in runs for _ in range(times)] or [-(-world_size // nodes)] * nodes
