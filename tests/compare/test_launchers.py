"""Processes that really run, fail, are interrupted, and lose the machine under them."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from detkit.compare import launchers
from detkit.compare.launchers import CONSOLE, Job, launch_local, launch_ray, resources_of_run
from tests.refusals import Refuses


def job(tmp_path: Any, name: Any, code: Any) -> Any:
    return Job(name, (sys.executable, "-c", code), tmp_path / name)


def run(launcher: Any, jobs: Any, at_once: Any) -> Any:
    codes, order = {}, []

    def finished(job: Any, code: Any) -> None:
        codes[job.name] = code

    launcher(jobs, at_once=at_once, threads=3, finished=finished, started=lambda job: order.append(job.name))
    return codes, order


def test_every_job_runs_and_says_how_it_ended(tmp_path: Path) -> None:
    jobs = [job(tmp_path, str(n), f"import sys; print('hello {n}'); sys.exit({n})") for n in range(4)]
    codes, order = run(launch_local, jobs, 2)
    assert codes == {"0": 0, "1": 1, "2": 2, "3": 3}
    assert order == ["0", "1", "2", "3"]
    assert (tmp_path / "2" / CONSOLE).read_text() == "hello 2\n"


@pytest.mark.parametrize("at_once", [1, 2])
def test_threads_are_those_of_the_bench_however_many_run(tmp_path: Path, at_once: int) -> None:
    run(launch_local, [job(tmp_path, "a", "import os; print(os.environ['OMP_NUM_THREADS'])")], at_once)
    assert (tmp_path / "a" / CONSOLE).read_text() == "3\n"


def test_without_a_word_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "usable_cores", lambda: 8)
    assert [launchers.threads_of_cores(at_once) for at_once in (1, 3, 20)] == [8, 2, 1]


def test_each_of_several_gets_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.3)"
    run(launch_local, [job(tmp_path, str(n), code) for n in range(2)], 2)
    assert {(tmp_path / str(n) / CONSOLE).read_text().strip() for n in range(2)} == {"4", "7"}


def test_what_a_job_printed_before_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        run(launch_local, [job(tmp_path, "a", f"print('{word}')")], 1)
    assert (tmp_path / "a" / CONSOLE).read_text() == "first\nsecond\n"


def test_no_jobs_at_a_time_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        run(launch_local, [], 0)


BENCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent that ignores it hands that down
from pathlib import Path
from detkit.compare.launchers import Job, launch_local
wait = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('in order'), sys.exit(143))); print('up', flush=True); time.sleep(60)"
jobs = [Job(n, (sys.executable, "-c", wait), Path(sys.argv[1]) / n) for n in "ab"]
launch_local(jobs, at_once=1, threads=1, finished=print, started=print)
"""  # noqa: E501


def started_bench(tmp_path: Any) -> Any:
    bench = subprocess.Popen([sys.executable, "-c", BENCH, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    console = tmp_path / "a" / CONSOLE
    wait_for(lambda: console.exists() and "up" in console.read_text())
    return bench, console


def wait_for(condition: Any, seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def test_ctrl_c_ends_the_running_job_in_order_and_starts_no_other(tmp_path: Path) -> None:
    bench, console = started_bench(tmp_path)
    bench.send_signal(signal.SIGINT)
    _, said = bench.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert console.read_text() == "up\nin order\n"
    assert not (tmp_path / "b").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_bench_that_is_killed_takes_its_jobs_along(tmp_path: Path) -> None:
    bench, _ = started_bench(tmp_path)
    (job,) = children(bench.pid)
    bench.kill()
    bench.wait()
    bench.stderr.close()
    wait_for(lambda: not alive(job))


def children(pid: Any) -> Any:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def alive(pid: Any) -> Any:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_shares_of_a_cluster() -> None:
    assert resources_of_run({"CPU": 8.0}, 3) == {"num_cpus": 2}
    assert resources_of_run({"CPU": 2.0}, 4) == {"num_cpus": 1}
    assert resources_of_run({"CPU": 16.0, "GPU": 4.0}, 4) == {"num_cpus": 4, "num_gpus": 1}


# Counts its starts in a file; the first time it hangs, so that its machine can be taken away meanwhile.
HANGS_ONCE = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1])
file.write_text((file.read_text() if file.exists() else "") + "x")
if file.read_text() == "x":
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_run_whose_machine_dies_is_made_again_on_another(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        first = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        count = tmp_path / "count"
        jobs = [
            Job("hangs", (sys.executable, "-c", HANGS_ONCE, str(count)), tmp_path / "hangs"),
            job(tmp_path, "fails", "import sys; sys.exit(3)"),
        ]
        # Ray's nodes are made and unmade in the main thread only.
        with ThreadPoolExecutor(1) as executor:
            bench = executor.submit(run, launch_ray, jobs, 1)
            wait_for(count.exists)
            cluster.add_node(num_cpus=1)
            cluster.remove_node(first, allow_graceful=False)
            codes, _ = bench.result(timeout=120)
        assert codes == {"hangs": 0, "fails": 3}
        assert count.read_text() == "xx"
    finally:
        ray.shutdown()
        cluster.shutdown()
