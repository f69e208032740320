"""Who hangs, found by threads in one process; real processes are in test_failure.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from detkit.distributed.progress import Progress
from detkit.distributed.watchdog import Heartbeat, Watchdog, diagnose_hang
from detkit.utils.exit_codes import ExitCode


def beat(rank: int, number: int, phases: int, phase: str = "backward", step: int = 7) -> Heartbeat:
    return Heartbeat(rank, f"host{rank}", 100 + rank, number, step, phase, phases)


def hosts(number: int) -> list[str]:
    return [f"host{rank}" for rank in range(number)]


def test_the_one_furthest_behind_is_to_blame() -> None:
    before = {0: beat(0, 1, 9), 1: beat(1, 1, 7, "data"), 2: beat(2, 1, 9)}
    now = {0: beat(0, 2, 9), 1: beat(1, 2, 7, "data"), 2: beat(2, 2, 9)}
    hang = diagnose_hang(before, now, hosts(3), 30)
    assert hang.ranks == (1,)
    assert hang.text.splitlines()[0] == "no progress for 30 s (train.hang_timeout)"
    assert hang.text.splitlines()[1] == "  rank 1 on host1 (process 101): step 7, data  <- hangs"
    assert "  rank 0 on host0 (process 100): step 7, backward, waiting" in hang.text


def test_one_that_is_stopped_is_to_blame_wherever_it_was() -> None:
    before = {0: beat(0, 1, 9), 1: beat(1, 5, 9)}
    now = {0: beat(0, 2, 9), 1: beat(1, 5, 9)}
    hang = diagnose_hang(before, now, hosts(2), 30)
    assert hang.ranks == (1,)
    assert "rank 1 on host1 (process 101): step 7, backward  <- not responding" in hang.text


def test_one_that_was_never_heard_of_is_named() -> None:
    hang = diagnose_hang({0: beat(0, 1, 2)}, {0: beat(0, 2, 2)}, hosts(2), 30)
    assert hang.ranks == (1,)
    assert "rank 1 on host1  <- not responding" in hang.text


def test_if_all_wait_in_the_same_place_all_are_named() -> None:
    before = {r: beat(r, 1, 4, "all-reduce") for r in range(2)}
    hang = diagnose_hang(before, {r: beat(r, 2, 4, "all-reduce") for r in range(2)}, hosts(2), 30)
    assert hang.ranks == (0, 1)
    assert "the collective hangs" in hang.text


def test_many_ranks_make_a_short_message() -> None:
    before = {r: beat(r, 1, 9 - (r == 50)) for r in range(64)}
    now = {r: beat(r, 2, 9 - (r == 50)) for r in range(64)}
    lines = diagnose_hang(before, now, hosts(64), 30).text.splitlines()
    assert "rank 50" in lines[1]
    assert lines[-1] == "  and 56 more ranks"


def watch(folder: Path, timeout: float, ranks: int) -> tuple[list[Watchdog], list[tuple[int, int]]]:
    """Watchdogs of `ranks` ranks that share a store; what they ended with."""
    store, ended = dist.HashStore(), list[tuple[int, int]]()

    def end_of(rank: int) -> Callable[[int], None]:
        return lambda code: ended.append((rank, code))

    dogs = [
        Watchdog(Progress(), timeout, rank=rank, hosts=hosts(ranks), store=store, log_file=folder / f"{rank}.txt",
                 end=end_of(rank))
        for rank in range(ranks)
    ]  # fmt: skip
    return dogs, ended


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_ranks_find_together_which_of_them_hangs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dogs, ended = watch(tmp_path, 1.0, 2)
    for dog in dogs:
        dog.progress.enter("data", 5)
    dogs[0].progress.enter("forward", 5)
    with dogs[0], dogs[1]:
        wait_for(lambda: len(ended) == 2)
    assert ended == [(1, ExitCode.HUNG), (0, ExitCode.HUNG)]
    said = capfd.readouterr().err
    assert said.count("no progress for 1 s") == 1, "only the one to blame speaks"
    assert "step 5, data  <- hangs" in said
    assert "step 5, forward, waiting" in said
    assert "in wait_for" in said, "the stack of the main thread is printed"
    for rank in range(2):
        text = (tmp_path / f"{rank}.txt").read_text()
        assert "<- hangs" in text
        assert f"stacks of rank {rank}" in text


def test_one_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    dogs, ended = watch(tmp_path, 0.4, 1)
    with dogs[0] as dog:
        for step in range(12):
            dog.progress.enter("data", step)
            time.sleep(0.1)
    time.sleep(0.6)
    assert ended == []


def test_long_work_with_beats_is_no_hang(tmp_path: Path) -> None:
    dogs, ended = watch(tmp_path, 0.4, 1)
    with dogs[0] as dog:
        dog.progress.enter("evaluation", 3)
        for _ in dog.progress.track(range(12)):
            time.sleep(0.1)
    assert ended == []


def test_null_watches_nothing() -> None:
    with Watchdog(Progress(), None):
        assert "detkit watchdog" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_a_process_that_was_paused_has_not_hung() -> None:
    program = """
import sys, time
from detkit.distributed.watchdog import Progress, Watchdog
with Watchdog(progress := Progress(), 1.0):
    print("on", flush=True)
    for _ in range(20):
        time.sleep(0.1)
        progress.tick()
print("done")
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=30)[0] == "done\n"
    assert process.returncode == 0


def test_alone_a_hang_ends_the_process_with_its_own_code() -> None:
    program = """
import time
from detkit.distributed.watchdog import Progress, Watchdog
with Watchdog(progress := Progress(), 0.5):
    progress.enter("data", 3)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40)
    assert done.returncode == ExitCode.HUNG
    assert "step 3, data  <- hangs" in done.stderr
    assert 'File "<string>", line 6' in done.stderr
    assert "resume with --resume" in done.stderr


@pytest.mark.slow
def test_code_that_never_lets_python_run_is_found_by_the_backstop() -> None:
    """A long computation in C that holds the interpreter's lock: the timer of faulthandler needs no lock."""
    program = """
from detkit.distributed.watchdog import Progress, Watchdog
with Watchdog(Progress(), 0.5, hosts=('a', 'b')):
    pow(7, 10**9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 4' in done.stderr
