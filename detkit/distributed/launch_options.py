"""Options of `detkit train --procs` and `--nodes`."""

from __future__ import annotations

from dataclasses import dataclass

from detkit.utils.cores import most_processes, usable_cores


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """How many processes to start, and where.

    Args:
        procs: processes on this machine.
        min_nodes: fewest machines with which the run continues.
        max_nodes: most machines.
        node_rank: index of this machine; 0 is the one that `rdzv` names.
        rdzv: host:port of the rendezvous; one machine needs none.
        max_restarts: restarts of all workers after a failure.
        local_addr: this machine's address as the others see it.
        threads: `train.threads`.
        on_gpu: whether each process gets its own GPU.
        check: run only the preflight.
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

    @property
    def rdzv_address(self) -> tuple[str, int]:
        host, _, port = (self.rdzv or "").rpartition(":")
        return host, int(port)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--procs", self.procs, 1), ("--nodes", self.min_nodes, 1), ("--max-restarts", self.max_restarts, 0),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name}: {value} must be at least {least}")
        if self.procs > (most := most_processes()):
            raise ValueError(f"--procs: {self.procs} must be at most {most} on {usable_cores()} CPU cores")
        if self.max_nodes < self.min_nodes:
            raise ValueError(f"--nodes: {self.min_nodes}:{self.max_nodes}: MIN must not exceed MAX")
        if self.max_nodes > 1 and not self.rdzv:
            raise ValueError(
                f"--nodes {self.max_nodes} needs --rdzv HOST:PORT on every machine: the address of one of them, "
                "and a port that is free there"
            )
        if self.rdzv:
            host, _, port = self.rdzv.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"--rdzv {self.rdzv}: must be HOST:PORT, e.g. 10.0.0.1:29400")
        if self.node_rank is not None and not 0 <= self.node_rank < self.max_nodes:
            raise ValueError(f"--node-rank: {self.node_rank} must be between 0 and {self.max_nodes - 1}")
