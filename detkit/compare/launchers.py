"""Starts the runs of a bench: in processes of this machine, each with its share of threads or a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

CONSOLE = "console.txt"
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """A command, and the folder of its run, in which console.txt takes what it prints."""

    name: str
    arguments: tuple[str, ...]
    folder: Path


Finished = Callable[[Job, int], None]
"""Called in the caller's thread with a job and its exit code."""


def launch_local(jobs: Sequence[Job], *, at_once: int, finished: Finished, started: Callable[[Job], None]) -> None:
    """Runs all jobs, `at_once` at a time. An interrupt ends the running ones in order and is raised again.

    Each gets an equal share of the cores as threads and, where there are GPUs, one of them.
    """
    if at_once < 1:
        raise ValueError(f"--jobs: {at_once} is less than 1")
    pool = _Processes(at_once)
    waiting = list(jobs)
    running: dict[Future[int], Job] = {}
    executor = ThreadPoolExecutor(at_once)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                started(job)
                running[executor.submit(pool.run, job)] = job
            done: set[Future[int]] = wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done
            for future in done:
                finished(running.pop(future), future.result())
    finally:
        # Only after an interrupt is any still running: each writes its checkpoint and ends.
        pool.end_all()
        executor.shutdown(wait=True)


class _Processes:
    """The processes that are running, and the devices that are free."""

    def __init__(self, at_once: int) -> None:
        self.threads = max(1, (os.cpu_count() or 1) // at_once)
        self._devices: SimpleQueue[str | None] = SimpleQueue()
        gpus = visible_gpus()
        for slot in range(at_once):
            self._devices.put(gpus[slot % len(gpus)] if gpus else None)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, job: Job) -> int:
        """Exit code of a job's process."""
        device = self._devices.get()
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        job.folder.mkdir(parents=True, exist_ok=True)
        try:
            with (job.folder / CONSOLE).open("ab") as console:
                # A session of its own: Ctrl-C reaches this process alone, which then ends the others in order.
                process = subprocess.Popen(
                    job.arguments, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                    env=environment, start_new_session=True,
                )  # fmt: skip
                with self._lock:
                    self._running.add(process)
                code = process.wait()
        finally:
            self._devices.put(device)
        with self._lock:
            self._running.discard(process)
        return code

    def end_all(self) -> None:
        """Asks every process to end, and ends those that don't."""
        with self._lock:
            running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES can be set to, one of each GPU that may be used; empty without any."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device for device in given.split(",") if device.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a module of detkit in this Python."""
    return (sys.executable, "-m", module, *arguments)
