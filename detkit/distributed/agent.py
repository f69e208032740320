"""Torchelastic's agent, with three things told to it: what is final, how long to wait, what to say."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from detkit.distributed.failure import FINAL, root_cause
from detkit.distributed.process_info import ROUND, STORE
from detkit.utils.exit_codes import STOPPED

STOP_SECONDS = 120
"""What a worker has for its last step and its checkpoint before it is killed."""
FAILED_SECONDS = 30
"""What it has to end after another one failed. It may be stopped, or wait in NCCL for the dead one, deaf to SIGTERM."""
AGAIN_SECONDS = 300.0
"""The same crash within this time of a restart is one that no restart heals."""


class Agent(LocalElasticAgent):
    """Starts the workers of this machine again after a failure, unless the failure is final.

    folder: for the files in which workers leave what they died of. store: host:port of the rendezvous;
    None for the one that this process keeps. started: whether workers run or ran.
    """

    def __init__(self, spec: WorkerSpec, folder: str, *, store: str | None) -> None:
        super().__init__(spec, DefaultLogsSpecs(log_dir=folder))
        self.started = False
        self._failed = False
        self._store_address = store
        self._started_at, self._last = 0.0, ""

    def tell(self, result: RunResult) -> int:
        """Prints what ended the run, once and last; gives back its exit code."""
        failure, here = root_cause(result.failures)
        if failure.code not in STOPPED and failure.text:
            print(failure.format() if here else f"error: stopped, for {failure.summary()}", file=sys.stderr, flush=True)
        return failure.code

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        """Tells the workers where to meet, and what tells them from workers started before."""
        store: Any = worker_group.store
        # The store is new for every rendezvous; the first agent's word is everyone's.
        os.environ[ROUND] = store.compare_set("detkit/round", "", uuid.uuid4().hex).decode()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        os.environ[STORE] = self._store_address or f"{store.host}:{store.port}"
        self.started, self._started_at, self._failed = True, time.monotonic(), False
        pids: dict[int, Any] = super()._start_workers(worker_group)
        return pids

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """The agent's own; where the failure is final, no restart is left."""
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state != WorkerState.FAILED:
            return result
        self._failed = True
        failure, _ = root_cause(result.failures)
        again = (
            bool(failure.trace) and failure.trace == self._last and time.monotonic() - self._started_at < AGAIN_SECONDS
        )
        self._last = failure.trace if failure.kind == "crash" else ""
        if failure.code in FINAL or again:
            self._remaining_restarts = 0
        elif self._remaining_restarts > 0:
            count, of = worker_group.spec.max_restarts - self._remaining_restarts + 1, worker_group.spec.max_restarts
            print(f"warning: {failure.summary()}; restart {count} of {of}", file=sys.stderr, flush=True)
        return result

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM) -> None:
        """The agent's own, after the workers had the time to end their step and write a checkpoint."""
        if self._pcontext is not None:
            self._pcontext.close(death_sig, timeout=FAILED_SECONDS if self._failed else STOP_SECONDS)
        super()._shutdown(death_sig)
