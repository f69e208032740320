"""Starts the runs of a bench: in processes on this machine, or on the machines of a Ray cluster.

Each run is a separate process with a fixed number of threads, or a GPU. It ends with the process that started it,
however that ended: else two processes would work in one folder after a bench was killed and started again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from detkit.utils.cores import usable_cores

CONSOLE = "console.txt"
GRACE_SECONDS = 60.0
POLL_SECONDS = 0.1
MACHINE_DEATHS = 3
"""How often Ray restarts a run whose machine died."""
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Job:
    """A command, and the folder of its run, where console.txt takes its output."""

    name: str
    arguments: tuple[str, ...]
    folder: Path


Started = Callable[[Job], None]
Finished = Callable[[Job, int], None]
"""Called in the caller's thread with a job and its exit code."""


class Launcher(Protocol):
    """Runs all jobs, `at_once` at a time, with `threads` threads each."""

    def __call__(
        self, jobs: Sequence[Job], *, at_once: int, threads: int, finished: Finished, started: Started
    ) -> None: ...


def threads_of_cores(at_once: int) -> int:
    """Threads of each of `at_once` runs on this machine: an equal share of the cores."""
    return max(1, usable_cores() // at_once)


def launch_local(jobs: Sequence[Job], *, at_once: int, threads: int, finished: Finished, started: Started) -> None:
    """Runs all jobs on this machine, with one of the GPUs each if there are any.

    An interrupt ends the running jobs in order and is raised again.
    """
    if at_once < 1:
        raise ValueError(f"--jobs: {at_once} must be at least 1")
    gpus = visible_gpus()
    free = deque(gpus[slot % len(gpus)] if gpus else None for slot in range(at_once))
    waiting = deque(jobs)
    running: dict[subprocess.Popen[bytes], tuple[Job, str | None]] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, device = waiting.popleft(), free.popleft()
                started(job)
                running[start(job.arguments, job.folder, threads, device)] = job, device
            for process in [process for process in running if process.poll() is not None]:
                job, device = running.pop(process)
                free.append(device)
                finished(job, process.returncode)
            time.sleep(POLL_SECONDS)
    finally:
        stop(running)  # after an interrupt: each writes its checkpoint and ends


def stop(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """Sends SIGTERM to every process, then SIGKILL to those that have not ended in time."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def start(arguments: Sequence[str], folder: Path, threads: int, device: str | None) -> subprocess.Popen[bytes]:
    """Starts the process of a run. Ctrl-C does not reach it: the launcher ends it in order."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    folder.mkdir(parents=True, exist_ok=True)
    end_with_parent = partial(_libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL) if _libc else None
    with (folder / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip


def visible_gpus() -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES, one for each usable GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Command line that runs a module of detkit with this Python."""
    return (sys.executable, "-m", module, *arguments)


def launch_ray(jobs: Sequence[Job], *, at_once: int, threads: int, finished: Finished, started: Started) -> None:
    """Runs all jobs on the cluster of RAY_ADDRESS or `ray start`, else on a local Ray that it starts on this machine.

    The folders must be on a disk that all machines share. A run whose machine dies is restarted on another machine,
    where it resumes from its last checkpoint.
    """
    waiting = list(jobs)
    running: dict[Any, Job] = {}
    with connected_ray() as ray:
        resources = resources_of_run(ray.cluster_resources(), at_once)
        make: Any = ray.remote(_run_on_cluster).options(**resources, max_retries=MACHINE_DEATHS)
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    started(job)
                    folder, path = str(job.folder.resolve()), os.environ.get("PYTHONPATH")
                    running[make.remote(job.arguments[1:], folder, os.getcwd(), path, threads)] = job
                done, _ = ray.wait(list(running), timeout=1.0)
                for reference in done:
                    finished(running.pop(reference), _exit_code(ray, reference))
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=GRACE_SECONDS)


@contextlib.contextmanager
def connected_ray() -> Iterator[Any]:
    """The ray module, connected while the context is active."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"--launcher ray requires Ray ({error}): pip install 'detkit[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        yield ray
    finally:
        ray.shutdown()


def threads_of_cluster(at_once: int) -> int:
    with connected_ray() as ray:
        return int(resources_of_run(ray.cluster_resources(), at_once)["num_cpus"])


def resources_of_run(resources: dict[str, float], at_once: int) -> dict[str, float]:
    """Ray resources of one of `at_once` runs: a GPU if the cluster has any, and an equal share of the cores."""
    cores = max(1, int(resources.get("CPU", 1)) // at_once)
    return {"num_cpus": cores, "num_gpus": 1} if resources.get("GPU", 0) >= 1 else {"num_cpus": cores}


def _exit_code(ray: Any, reference: Any) -> int:
    """Exit code of a run; 1 if Ray gave it up, as after the death of several machines."""
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError as error:
        print(f"ray: {error}", file=sys.stderr)
        return 1


def _run_on_cluster(arguments: Sequence[str], folder: str, current: str, path: str | None, threads: int) -> int:
    """Makes one run on a machine of the cluster. Ray has set CUDA_VISIBLE_DEVICES already."""
    if path is not None:
        os.environ["PYTHONPATH"] = path
    if os.path.isdir(current):
        os.chdir(current)
    process = start((sys.executable, *arguments), Path(folder), threads, None)
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # the task was cancelled
            stop([process])


class LauncherChoice(NamedTuple):
    """How runs are started, and the default number of threads of one of N runs at a time."""

    launch: Launcher
    default_threads: Callable[[int], int]


LOCAL = LauncherChoice(launch_local, threads_of_cores)
LAUNCHERS = {"local": LOCAL, "ray": LauncherChoice(launch_ray, threads_of_cluster)}
