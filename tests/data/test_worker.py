"""Loader processes that die, and how much memory they take."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, build_eval_loader, build_train_loader
from detkit.data.transforms.base import Transform
from detkit.data.worker import WorkerDiedError, explain_lost_connection, explain_worker_death, worker_processes
from tests.refusals import Refuses

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills forked loader processes")


class KillAt(Transform):
    """Kills its process at the image that is number `place` of those this process makes, from 0."""

    def __init__(self, place: int, number: int) -> None:
        self.place, self.number, self.made = place, number, 0

    def __call__(self, image: Any, boxes: Any, labels: Any) -> Any:
        if self.made == self.place:
            os.kill(os.getpid(), self.number)
        self.made += 1
        return image, boxes, labels


@pytest.fixture(scope="module")
def dataset() -> ShapesDataset:
    return ShapesDataset(num_images=12, size=64)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_names_the_image_it_was_at(dataset: ShapesDataset, number: int) -> None:
    loader = build_eval_loader(dataset, [KillAt(4, number)], LoaderOptions(batch_size=3, num_workers=1))
    with pytest.raises(WorkerDiedError) as caught:
        list(loader)
    text = str(caught.value)
    assert "while loading image 5 (train_000005.png), number 2 of its batch of 4 (train_000004.png), 5 (" in text
    assert "loader worker 0" in text
    assert "memory" in text


def test_a_worker_killed_from_outside_names_its_last_batch(dataset: ShapesDataset) -> None:
    before = set(worker_processes())
    loader = iter(build_train_loader(dataset, [], LoaderOptions(batch_size=2, num_workers=2), seed=0))
    ids = next(iter(loader)).image_ids
    time.sleep(0.5)
    process = (set(worker_processes()) - before).pop()

    def kill_and_go_on() -> None:
        os.kill(process, signal.SIGKILL)
        time.sleep(1)
        list(itertools.islice(loader, 50))

    # torch raises it here or there: from its signal handler or in the loader.
    with pytest.raises((WorkerDiedError, RuntimeError)) as caught:
        kill_and_go_on()
    died = caught.value if isinstance(caught.value, WorkerDiedError) else explain_worker_death(caught.value)
    assert died is not None
    assert f"(process {process}) died after loading its batch of " in str(died)
    assert len(ids) == 2


def test_a_batch_that_a_dead_worker_did_not_hand_over_names_the_worker(
    refuses: Refuses, dataset: ShapesDataset
) -> None:
    """Its tensors are fetched from the worker, which may be dead by then: a lost connection, not torch's words."""
    loader: Any = build_eval_loader(dataset, [], LoaderOptions(batch_size=3, num_workers=1))
    batches, before, samples = iter(loader), set(worker_processes()), loader.torch_loader.dataset

    class Lost:
        num_workers = 1

        def __iter__(self) -> Iterator[Any]:
            return self.go(iter(DataLoader(samples, batch_sampler=[[(0, 0)]], num_workers=1, collate_fn=list)))

        def go(self, inner: Iterator[Any]) -> Iterator[Any]:
            yield next(inner)
            process = (set(worker_processes()) - before).pop()
            with contextlib.suppress(RuntimeError):  # torch's signal handler may speak up first
                os.kill(process, signal.SIGKILL)
                time.sleep(0.5)
            raise ConnectionResetError(104, "Connection reset by peer")

    loader.torch_loader = Lost()
    next(batches)
    with refuses(WorkerDiedError, hide=r"exited unexpectedly[^\n]*"):
        next(batches)


def test_a_lost_connection_with_all_workers_alive_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.data.worker.DYING_SECONDS", 0.1)
    error = ConnectionResetError(104, "Connection reset by peer")
    assert explain_lost_connection(error, []) is error
    sleeper = multiprocessing.Process(target=time.sleep, args=(30,), daemon=True)
    sleeper.start()
    assert explain_lost_connection(error, [sleeper]) is error
    sleeper.kill()
    sleeper.join()


def test_a_temporary_folder_that_is_too_long_for_sockets_is_refused(
    refuses: Refuses, dataset: ShapesDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue's thread in the worker would print `AF_UNIX path too long` and the training would wait for ever."""
    long = "/tmp/" + "x" * 71
    monkeypatch.setattr("tempfile.tempdir", long)
    with refuses(ValueError):
        build_eval_loader(dataset, [], LoaderOptions(batch_size=3, num_workers=1))
    build_eval_loader(dataset, [], LoaderOptions(batch_size=3, num_workers=0))
    monkeypatch.setattr("tempfile.tempdir", long[:-1])
    build_eval_loader(dataset, [], LoaderOptions(batch_size=3, num_workers=1))


def test_torch_may_speak_up_while_a_lost_connection_is_looked_into() -> None:
    told = RuntimeError("DataLoader worker (pid 300) is killed by signal: Segmentation fault.")

    class Asked:
        pid = 300

        def is_alive(self) -> bool:
            raise told  # as torch's handler of SIGCHLD does, wherever the program is

    asked: Any = [Asked()]
    assert explain_lost_connection(ConnectionResetError(104, "Connection reset by peer"), asked) is told


def test_other_errors_are_left_alone() -> None:
    assert explain_worker_death(RuntimeError("shapes don't fit")) is None
    assert explain_worker_death(RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")) is None


def test_a_worker_shows_where_it_is() -> None:
    """SIGUSR1 prints the stacks of a worker that sleeps in its data set, and doesn't disturb it."""
    program = """
import time, torch
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.loader import LoaderOptions, build_eval_loader
from detkit.data.worker import worker_processes
import os, signal, threading
class Sleeps(ShapesDataset):
    def load_image(self, index):
        time.sleep(2 if index == 3 else 0)
        return super().load_image(index)
def ask():
    time.sleep(1)
    for process in worker_processes():
        os.kill(process, signal.SIGUSR1)
loader = iter(build_eval_loader(Sleeps(num_images=4, size=64), [], LoaderOptions(batch_size=1, num_workers=1)))
print(len(next(loader)))
threading.Thread(target=ask).start()
print(len(list(loader)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "in load_image" in done.stderr
    assert done.stdout.split() == ["1", "3"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_memory_of_workers_stays_flat_over_epochs(tmp_path: Path) -> None:
    from benchmarks.bench_loader import measure

    rows = measure(tmp_path, images=100_000, workers=4, epochs=3, steps=500)
    started, *later = rows
    assert max(started["own_mib"]) < 300
    assert max(started["pss_mib"]) < 300
    # Not the shares of shared pages: they grow when a process that has nothing to do with this one, but has torch
    # loaded too, ends.
    first = later[0]["own_mib"]
    for row in later[1:]:
        assert max(b - a for a, b in zip(first, row["own_mib"], strict=True)) < 5
