"""The agent of `detkit train --procs`: knows which failures are final, how long to wait, and what to print."""

from __future__ import annotations

import os
import sys
import time
import uuid

from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec

from detkit.distributed.failure import FINAL, root_cause
from detkit.distributed.process_info import ROUND, STORE
from detkit.distributed.torchelastic import ElasticAgent, RendezvousStore, address_of
from detkit.utils.exit_codes import STOPPED

STOP_SECONDS = 120
"""What a worker gets for its last step and its checkpoint before it is killed."""
FAILED_SECONDS = 30
"""What a worker gets after another one failed. It may be stopped, or hang in NCCL, which ignores SIGTERM."""
AGAIN_SECONDS = 300.0
"""The same crash within this time of a restart is one that no restart heals."""


class Agent(ElasticAgent):
    """Restarts the workers of this machine after a failure, unless the failure is final.

    folder: for the error files of workers. store: host:port of the rendezvous; None for the one that this process
    hosts. started: whether workers run or ran.
    """

    def __init__(self, spec: WorkerSpec, folder: str, *, store: str | None) -> None:
        super().__init__(spec, folder)
        self.started = False
        self._max_restarts = spec.max_restarts
        self._failed = False
        self._store_address = store
        self._started_at, self._last_crash = 0.0, ""

    def report(self, result: RunResult) -> int:
        """Prints what ended the run, once; returns its exit code."""
        failure, is_local = root_cause(result.failures)
        if failure.code not in STOPPED and failure.text:
            text = failure.format() if is_local else f"error: stopped because another node failed: {failure.summary()}"
            print(text, file=sys.stderr, flush=True)
        return failure.code

    def before_start(self, store: RendezvousStore) -> None:
        """Sets the address of the store, and the round, which sets these workers apart from earlier ones."""
        # The store is new for every rendezvous; the first agent sets the round for all.
        os.environ[ROUND] = store.compare_set("detkit/round", "", uuid.uuid4().hex).decode()
        os.environ[STORE] = self._store_address or address_of(store)
        self.started, self._started_at, self._failed = True, time.monotonic(), False

    def after_failure(self, result: RunResult) -> bool:
        """Restarts nothing that would fail the same way; prints a warning before a restart."""
        self._failed = True
        failure, _ = root_cause(result.failures)
        soon = time.monotonic() - self._started_at < AGAIN_SECONDS
        is_same_crash = bool(failure.trace) and failure.trace == self._last_crash and soon
        self._last_crash = failure.trace if failure.kind == "crash" else ""
        if failure.code in FINAL or is_same_crash:
            return False
        if self.restarts_left > 0:
            number = self._max_restarts - self.restarts_left + 1
            warning = f"warning: {failure.summary()}; restart {number} of {self._max_restarts}"
            print(warning, file=sys.stderr, flush=True)
        return True

    def stop_seconds(self) -> int:
        return FAILED_SECONDS if self._failed else STOP_SECONDS
