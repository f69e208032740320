"""torchelastic's agent with public hooks: the one module of detkit that knows its private members."""

from __future__ import annotations

import inspect
import signal
from typing import Protocol, cast

import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

METHODS = {
    "_start_workers": ["self", "worker_group"],
    "_monitor_workers": ["self", "worker_group"],
    "_shutdown": ["self", "death_sig"],
}
"""Methods that this module overrides, with the parameters that it passes on."""
ATTRIBUTES = ("_pcontext", "_remaining_restarts")
"""Attributes that this module reads or sets."""


class RendezvousStore(Protocol):
    """torch's store, as far as it is used here."""

    host: str
    port: int

    def compare_set(self, key: str, expected_value: str, desired_value: str) -> bytes: ...


class ElasticAgent(LocalElasticAgent):
    """An agent that starts, watches and restarts the workers of this machine.

    Subclasses override `before_start`, `after_failure` and `stop_seconds`. log_folder: for the error files of workers.
    """

    def __init__(self, spec: WorkerSpec, log_folder: str) -> None:
        super().__init__(spec, DefaultLogsSpecs(log_dir=log_folder))
        check_members(self)

    def before_start(self, store: RendezvousStore) -> None:
        """Prepares the environment that the workers inherit. store: of this rendezvous, new for each."""

    def after_failure(self, result: RunResult) -> bool:
        """Returns whether the workers may be restarted, if restarts are left."""
        return True

    def stop_seconds(self) -> int:
        """Seconds that the workers get to end before they are killed."""
        return 30

    @property
    def restarts_left(self) -> int:
        return int(self._remaining_restarts)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, object]:
        self.before_start(cast(RendezvousStore, worker_group.store))
        return cast("dict[int, object]", super()._start_workers(worker_group))

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED and not self.after_failure(result):
            self._remaining_restarts = 0
        return result

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM) -> None:
        if self._pcontext is not None:
            self._pcontext.close(death_sig, timeout=self.stop_seconds())
        super()._shutdown(death_sig)


def address_of(store: RendezvousStore) -> str:
    """host:port of the server behind a store, whatever prefixes it has."""
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    return f"{store.host}:{store.port}"


def check_members(agent: LocalElasticAgent) -> None:
    """Raises RuntimeError if this version of torch has changed a private member that this module relies on."""
    for name, parameters in METHODS.items():
        method = getattr(LocalElasticAgent, name, None)
        if method is None:
            raise RuntimeError(_changed(f" has no {name} any more"))
        signature = list(inspect.signature(method).parameters)
        if signature != parameters:
            raise RuntimeError(_changed(f"'s {name} takes ({', '.join(signature)}), not ({', '.join(parameters)})"))
    for name in ATTRIBUTES:
        if not hasattr(agent, name):
            raise RuntimeError(_changed(f" has no {name} any more"))


def _changed(how: str) -> str:
    return f"torch {torch.__version__}: LocalElasticAgent{how}: detkit/distributed/torchelastic.py must be adapted"
