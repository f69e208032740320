"""Starts the runs of a bench: in processes of this machine, or on the machines of a Ray cluster.

Each run is a process of its own with a fixed number of threads, or a GPU. It ends when the process that
started it does, however that ended: else a bench that was killed and started again would have two
processes at work in one folder.
"""

from __future__ import annotations

import ctypes
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
from typing import Any

from detkit.utils.cores import usable_cores

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


def share_of_cores(at_once: int) -> int:
    """Threads of each of `at_once` runs on this machine."""
    return max(1, usable_cores() // at_once)


def launch_local(
    jobs: Sequence[Job], *, at_once: int, threads: int, finished: Finished, started: Callable[[Job], None]
) -> None:
    """Runs all jobs, `at_once` at a time. An interrupt ends the running ones in order and is raised again.

    Each gets `threads` threads, however many run, and one of the GPUs where there are any.
    """
    if at_once < 1:
        raise ValueError(f"--jobs: {at_once} is less than 1")
    pool = _Processes(at_once, threads)
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

    def __init__(self, at_once: int, threads: int) -> None:
        self.threads = threads
        self._devices: SimpleQueue[str | None] = SimpleQueue()
        gpus = visible_gpus()
        for slot in range(at_once):
            self._devices.put(gpus[slot % len(gpus)] if gpus else None)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, job: Job) -> int:
        """Exit code of a job's process."""
        device = self._devices.get()
        try:
            with start(job.arguments, job.folder, self.threads, device) as process:
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


def start(arguments: Sequence[str], folder: Path, threads: int, device: str | None) -> subprocess.Popen[bytes]:
    """The process of a run. Ctrl-C does not reach it: who started it ends it in order."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, preexec_fn=_end_with_parent if _libc else None,
        )  # fmt: skip


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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


# ---- a Ray cluster


def launch_ray(
    jobs: Sequence[Job], *, at_once: int, threads: int, finished: Finished, started: Callable[[Job], None]
) -> None:
    """The same on the cluster of RAY_ADDRESS or `ray start`, or on a Ray of its own on this machine.

    The folders must be on a disk that all machines share. A run whose machine dies is made again on
    another, where it resumes from its last checkpoint.
    """
    ray, ours = running_ray()
    share = share_of(ray.cluster_resources(), at_once)
    make: Any = ray.remote(_make).options(**share, max_retries=MACHINE_DEATHS)
    waiting = list(jobs)
    running: dict[Any, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                started(job)
                folder = str(job.folder.resolve())
                path = os.environ.get("PYTHONPATH")
                running[make.remote(job.arguments[1:], folder, os.getcwd(), path, threads)] = job
            done, _ = ray.wait(list(running), timeout=1.0)
            for reference in done:
                finished(running.pop(reference), _exit_code(ray, reference))
    finally:
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=GRACE_SECONDS)
        if ours:
            ray.shutdown()


MACHINE_DEATHS = 3


def running_ray() -> tuple[Any, bool]:
    """Ray, connected, and whether this process has started or reached it just now."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"--launcher ray needs Ray ({error}): pip install 'detkit[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    return ray, ours


def share_of_cluster(at_once: int) -> int:
    """Threads of each of `at_once` runs on the cluster."""
    ray, ours = running_ray()
    try:
        return int(share_of(ray.cluster_resources(), at_once)["num_cpus"])
    finally:
        if ours:
            ray.shutdown()


def share_of(resources: dict[str, float], at_once: int) -> dict[str, float]:
    """What one of `at_once` runs asks Ray for: a GPU where there are any, and its part of all cores."""
    cores = max(1, int(resources.get("CPU", 1)) // at_once)
    return {"num_cpus": cores, "num_gpus": 1} if resources.get("GPU", 0) >= 1 else {"num_cpus": cores}


def _exit_code(ray: Any, reference: Any) -> int:
    """Of a run; 1 if Ray gave it up, as when machine after machine died."""
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError as error:
        print(f"ray: {error}", file=sys.stderr)
        return 1


def _make(arguments: Sequence[str], folder: str, here: str, path: str | None, threads: int) -> int:
    """On a machine of the cluster: one run. Ray has set CUDA_VISIBLE_DEVICES already."""
    if path is not None:
        os.environ["PYTHONPATH"] = path
    if os.path.isdir(here):
        os.chdir(here)
    process = start((sys.executable, *arguments), Path(folder), threads, None)
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # the task was cancelled
            process.send_signal(signal.SIGTERM)
            process.wait(GRACE_SECONDS)


LAUNCHERS = {"local": launch_local, "ray": launch_ray}
SHARES = {"local": share_of_cores, "ray": share_of_cluster}
"""Launcher -> the threads of one of so many runs, where nobody has said how many."""
