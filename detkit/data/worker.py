"""Loader processes: their set-up, and a table of what each works on, which explains a death."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import torch.multiprocessing
from torch.utils.data import get_worker_info

from detkit.data.datasets.records import Records
from detkit.utils.console import shorten_list
from detkit.utils.cores import most_processes, usable_cores
from detkit.utils.exit_codes import ExitCode

PROCESS, POSITION, LENGTH, FIRST = range(4)
"""Columns of a `WorkerTable`: process id, images of its batch that it has made, images of the batch, their indices."""
ERROR_STREAM = 2
LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of TMPDIR. A worker hands its batches over by a Unix socket that multiprocessing makes below that folder, and
Linux takes 107 bytes for a socket's path. Beyond them the worker's thread prints an error and no batch ever arrives."""
DYING_SECONDS = 2.0
"""A process may outlive its connection for so long."""


class WorkerDiedError(ChildProcessError):
    """A loader process ended without a Python error: killed, out of memory, or crashed in native code."""

    exit_code = ExitCode.WORKER_DIED


class WorkerTable:
    """The batch and image that every loader process works on, in memory shared with the training process.

    records: of the data set, to name images. batch_size: most images of a batch.
    """

    def __init__(self, records: Records, workers: int, batch_size: int) -> None:
        self.records = records
        self._rows = torch.full((workers, FIRST + batch_size), -1, dtype=torch.int64)
        self._rows.share_memory_()  # type: ignore[no-untyped-call]
        _TABLES.add(self)

    def track(self, keys: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        """Yields the (epoch, index, ...) keys of a batch, each recorded first."""
        info = get_worker_info()
        if info is None:
            yield from keys
            return
        row = self._rows[info.id].numpy()
        row[PROCESS], row[POSITION], row[LENGTH] = os.getpid(), 0, len(keys)
        row[FIRST : FIRST + len(keys)] = [index for _, index, *_ in keys]
        for position, key in enumerate(keys):
            row[POSITION] = position
            yield key
        row[POSITION] = len(keys)

    def processes(self) -> dict[int, int]:
        """Process id -> number of the worker, for those that have begun a batch."""
        return {int(row[PROCESS]): worker for worker, row in enumerate(self._rows) if row[PROCESS] >= 0}

    def describe_work(self, worker: int) -> str:
        """The images that a worker was at, in words."""
        row: list[int] = self._rows[worker].tolist()
        indices = row[FIRST : FIRST + row[LENGTH]]
        names = [f"{int(self.records.image_ids[i])} ({self.records.path(i)})" for i in indices]
        position, batch = row[POSITION], shorten_list(names)
        if position < len(names):
            return f"while loading image {names[position]}, number {position + 1} of its batch of {batch}"
        return f"after loading its batch of {batch}"


_TABLES: weakref.WeakSet[WorkerTable] = weakref.WeakSet()


def worker_processes() -> list[int]:
    """Process ids of the loader workers of this process that have begun a batch; some may have ended."""
    return sorted({process for table in _TABLES for process in table.processes()})


def explain_worker_death(error: BaseException) -> WorkerDiedError | None:
    """Explains torch's "DataLoader worker (pid 7) is killed" by the worker's images; None for other errors.

    torch raises it from a signal handler as well, so it may come from anywhere in the training process.
    """
    match = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
    dead = [int(text) for text in match[1].split(",")] if match else []
    lines = [
        f"data loader worker {worker} (process {process}) died {table.describe_work(worker)}"
        for table in list(_TABLES)
        for process, worker in table.processes().items()
        if process in dead
    ]
    if not lines:
        return None
    return WorkerDiedError(
        "\n".join(lines) + f"\n{str(error).strip()}\nThe system kills a process when memory runs out (see `dmesg`): "
        "try fewer data.loader.num_workers, or check the image. data.loader.num_workers=0 loads in the training "
        "process and shows where it crashes."
    )


def check_workers(count: int) -> None:
    """Raises ValueError for more loader processes than a machine of this size can start."""
    if count > (most := most_processes()):
        limit = f"at most {most}; one per core is a good number"
        raise ValueError(f"data.loader.num_workers: {count} loader processes on {usable_cores()} cores: {limit}")


def check_temporary_folder() -> None:
    """Raises ValueError if the paths of loader processes' sockets would be too long: batches would never arrive."""
    folder = tempfile.gettempdir()
    by_socket = torch.multiprocessing.get_sharing_strategy() == "file_descriptor"  # type: ignore[no-untyped-call]
    if by_socket and len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise ValueError(
            f"the path of the temporary folder {folder} has {len(os.fsencode(folder))} bytes; the sockets of loader "
            f"processes allow at most {LONGEST_FOLDER}: set TMPDIR to a shorter one, or data.loader.num_workers=0"
        )


def explain_lost_connection(error: Exception, workers: Collection[BaseProcess]) -> Exception:
    """Torch's error for a dead loader process if one of them is dead; else the error of the connection itself."""
    deadline = time.monotonic() + DYING_SECONDS
    try:
        while not (dead := [w.pid for w in workers if not w.is_alive()]) and workers and time.monotonic() < deadline:
            time.sleep(0.05)
    except RuntimeError as torch_error:  # of torch's handler of SIGCHLD, which may run now
        return torch_error
    if not dead:
        return error
    return RuntimeError(f"DataLoader worker (pid(s) {', '.join(map(str, dead))}) exited unexpectedly: {error}")


@contextlib.contextmanager
def script_left_alone(parts: Sequence[object], workers: int) -> Iterator[None]:
    """While the context is active, processes that start don't run the user's script again.

    Where a start method is not `fork`, Python runs it for the sake of classes that it may define; without the guard
    `if __name__ == "__main__"` it would start the training once more. It is run only if one of `parts`, the data set
    and its transforms, is of such a class; ValueError if no file has that class, as in a notebook.
    """
    of_script = [type(part).__name__ for part in parts if type(part).__module__ == "__main__"]
    script = sys.modules["__main__"]
    if not workers or multiprocessing.get_start_method() == "fork":
        yield
        return
    if of_script and not Path(getattr(script, "__file__", None) or "<none>").is_file():
        raise ValueError(
            f"data.loader.num_workers: {shorten_list(of_script)} is defined in a notebook or console, which a loader "
            f"process started by {multiprocessing.get_start_method()} can't import: move it to a file and name that in "
            "`imports`, or set data.loader.num_workers=0"
        )
    if of_script:
        yield
        return
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def set_up_worker(worker: int) -> None:
    """Sets up a loader process: one thread, no answer to signals, stacks on SIGUSR1.

    Signals to the process group (Ctrl-C, timeout, a scheduler) are for the training process: a worker that died
    of them would turn its orderly stop into a crash.
    """
    gc.freeze()  # a collection would write into every object of the training process, and so copy all its pages
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()
    if hasattr(faulthandler, "register"):
        # Without an error stream there are no stacks, which is no reason to load nothing.
        with contextlib.suppress(OSError):
            faulthandler.register(signal.SIGUSR1, file=ERROR_STREAM, all_threads=True)


def _exit_on_parents_sigterm() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
