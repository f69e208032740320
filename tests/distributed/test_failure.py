"""Real processes that are killed, stopped and hung; the finished run must be the undisturbed one.

All of them start Python with torch several times, which takes most of their time: slow.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detkit.checkpoint import load_checkpoint, saved_steps
from detkit.runs.starts import read_starts
from detkit.utils.exit_codes import ExitCode

if TYPE_CHECKING:
    from tests.distributed.conftest import Tiny
else:
    Tiny = Any

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds its processes in /proc"),
]


def random_step() -> int:
    """Neither before the first checkpoint nor at the end."""
    return random.SystemRandom().randint(6, 34)


def run_of(process: subprocess.Popen[str]) -> bool:
    return process.poll() is None


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_started_again_and_nothing_is_lost(tiny: Tiny, whole: str, rank: int) -> None:
    run, step = f"killed{rank}", random_step()
    process = tiny.start(run, "--procs", "2")
    tiny.wait_for_step(run, step, process)
    os.kill(tiny.workers(process)[rank], signal.SIGKILL)
    _, error = tiny.finish(process)
    assert f"rank {rank} on " in error
    assert "SIGKILL" in error
    assert "restart 1 of 3" in error
    assert "resuming" in (tiny.folder / run / "log.txt").read_text(), f"killed after step {step}"
    tiny.assert_same(whole, run)


def test_a_worker_killed_before_the_first_checkpoint_begins_anew(tiny: Tiny, whole: str) -> None:
    process = tiny.start("early", "--procs", "2")
    tiny.wait_for_step("early", 1, process)
    os.kill(tiny.workers(process)[1], signal.SIGKILL)
    tiny.finish(process)
    tiny.assert_same(whole, "early")


def test_a_run_killed_as_a_whole_leaves_no_process_and_goes_on_with_any_number(tiny: Tiny, whole: str) -> None:
    process = tiny.start("dead", "--procs", "2")
    tiny.wait_for_step("dead", random_step(), process)
    workers = tiny.workers(process)
    assert sorted(workers) == [0, 1]
    process.kill()
    process.communicate()
    limit = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{worker}") for worker in workers.values()):
        assert time.monotonic() < limit, "a worker outlives its launcher"
        time.sleep(0.1)
    subprocess.run(["cp", "-r", str(tiny.folder / "dead"), str(tiny.folder / "dead1")], check=True)
    tiny.finish(tiny.start("dead", "--procs", "2", "--resume"))
    tiny.assert_same(whole, "dead")
    tiny.finish(tiny.start("dead1", "--resume"))
    tiny.assert_same(whole, "dead1", tolerance=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_leaves_a_checkpoint_to_go_on_from(tiny: Tiny, whole: str, number: int) -> None:
    run = f"stopped{number}"
    process = tiny.start(run, "--procs", "2")
    tiny.wait_for_step(run, 8, process)
    process.send_signal(number)
    tiny.finish(process, code=128 + number)
    steps = len([m for m in tiny.metrics(run) if "train/loss" in m])
    assert load_checkpoint(tiny.folder / run, prefer="newest").step == steps < 40
    tiny.finish(tiny.start(run, "--procs", "2", "--resume"))
    tiny.assert_same(whole, run)


def test_a_signal_to_every_process_at_once_leaves_a_checkpoint_too(tiny: Tiny) -> None:
    process = tiny.start("allstopped", "--procs", "2")
    tiny.wait_for_step("allstopped", 8, process)
    for one in (process.pid, *tiny.workers(process).values()):
        os.kill(one, signal.SIGTERM)
    tiny.finish(process, code=128 + signal.SIGTERM)
    steps = len([m for m in tiny.metrics("allstopped") if "train/loss" in m])
    assert load_checkpoint(tiny.folder / "allstopped", prefer="newest").step == steps < 40


LATE = """
import os, signal, time
from detkit.train import run_hooks

save = run_hooks.Checkpoints.save

def and_stop(self, trainer):
    save(self, trainer)
    if trainer.step == trainer.options.iterations and trainer.rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)

run_hooks.Checkpoints.save = and_stop
"""


def test_a_signal_after_the_last_step_stops_all_ranks_or_none(tiny: Tiny) -> None:
    """Rank 0 gets it while it writes the last checkpoint; the other is on its way to the evaluation by then."""
    (tiny.folder / "late.py").write_text(LATE)
    imports = f"imports=[{tiny.folder}/tiny.py, {tiny.folder}/late.py]"
    process = tiny.start("late", "--procs", "2", "train.hang_timeout=20", "--max-restarts", "0", imports)
    tiny.finish(process, code=128 + signal.SIGTERM)
    assert load_checkpoint(tiny.folder / "late", prefer="newest").step == 40


def test_a_stopped_rank_is_found_and_the_run_goes_on(tiny: Tiny, whole: str) -> None:
    process = tiny.start("frozen", "--procs", "2", "train.hang_timeout=4")
    tiny.wait_for_step("frozen", random_step(), process)
    os.kill(tiny.workers(process)[1], signal.SIGSTOP)
    _, error = tiny.finish(process, seconds=250)
    assert "no progress for 4 s (train.hang_timeout)" in error
    assert "rank 1 on " in error
    assert "<- not responding" in error
    assert "stacks of rank 0" in error, "the stopped one can't tell, so the other one does"
    assert "restart 1 of 3" in error
    tiny.assert_same(whole, "frozen")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_rank_that_sleeps_in_its_data_set_is_named_with_its_stack(tiny: Tiny, workers: int) -> None:
    run, switch = f"asleep{workers}", tiny.folder / "sleep"
    options = ("train.hang_timeout=4", f"data.loader.num_workers={workers}", "--max-restarts", "0")
    process = tiny.start(run, "--procs", "2", *options)
    try:
        tiny.wait_for_step(run, 7, process)
        switch.write_text("1")
        _, error = tiny.finish(process, code=ExitCode.HUNG, seconds=200)
    finally:
        switch.unlink(missing_ok=True)
    assert "error: no progress for 4 s (train.hang_timeout)" in error
    assert ", data  <- hangs" in error
    assert "stacks of rank 1" in error
    assert "stacks of rank 0" not in error
    assert "in load_image" in error, "the place at which it sleeps, be it in a loader process"
    assert "waiting" in error
    last = [line for line in error.splitlines() if line.strip()][-3:]
    assert any("rank 1" in line for line in last), "told once more at the end, by the launcher"
    assert saved_steps(tiny.folder / run)


def test_a_restart_with_edited_code_ends_the_run_by_the_name_of_the_file(tiny: Tiny, tmp_path: Path) -> None:
    own = type(tiny)(tmp_path)  # its plugin is edited, so it is not the one that other tests share
    process = own.start("edited", "--procs", "2")
    own.wait_for_step("edited", 6, process)
    plugin = tmp_path / "tiny.py"
    plugin.write_text(plugin.read_text() + "# edited\n")
    os.kill(own.workers(process)[1], signal.SIGKILL)
    _, error = own.finish(process, code=2)
    assert "restart 1 of 3" in error
    assert "restart 2 of 3" not in error
    assert "tiny.py has changed" in error
    before = saved_steps(own.folder / "edited")[0]
    out, _ = own.finish(own.start("edited", "--procs", "2", "--resume", "--allow", "code"))
    assert f"resuming {before}" in out
    first, second = read_starts(own.folder / "edited")
    assert second.step == int(before.stem.removeprefix("step_"))
    assert (second.changed, second.allowed) == (("tiny.py has changed",), ("code",))
    assert (first.facts["processes"], second.facts["processes"]) == (2, 2)
