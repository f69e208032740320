"""Ranks that meet, miss each other, differ and fail; here they are threads, for a store doesn't care."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from detkit.distributed import coordinator as coordinator_module
from detkit.distributed.coordinator import Coordinator, connect_seconds
from detkit.distributed.failure import (
    Failure,
    MissingRankError,
    PeerFailedError,
    describe_error,
    root_cause,
    write_error_file,
)
from detkit.distributed.preflight import compare
from detkit.distributed.process_info import ProcessInfo
from detkit.distributed.worker import run_worker
from detkit.utils.exit_codes import ExitCode
from tests.refusals import Refuses


def processes(count: int, **more: Any) -> list[ProcessInfo]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        store = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        ProcessInfo(rank=r, world_size=count, local_rank=r, local_world_size=count, launcher="slurm", store=store,
              hosts_store=r == 0, **more)
        for r in range(count)
    ]  # fmt: skip


def together(infos: list[ProcessInfo], work: Callable[[Coordinator], Any]) -> list[Any]:
    """What each rank's work gives back or raises; all stay until the last is done, as the first keeps the store."""
    done = threading.Barrier(len(infos))

    def one(process: ProcessInfo) -> Any:
        coordinator = Coordinator(process)
        try:
            coordinator.join(5.0)
            return work(coordinator)
        except Exception as error:
            return error
        finally:
            done.wait()

    with ThreadPoolExecutor(len(infos)) as pool:
        return list(pool.map(one, infos))


def failure(rank: int, text: Any = "x", **more: Any) -> Failure:
    return Failure(**{"rank": rank, "host": "h", "code": ExitCode.FAILED, "kind": "crash", "text": text} | more)


def test_values_come_by_rank() -> None:
    found = together(
        processes(3), lambda m: (m.all_gather("a", m.process.rank * 10), m.all_gather("b", [m.process.rank]))
    )
    assert found == [([0, 10, 20], [[0], [1], [2]])] * 3


def test_alone_there_is_no_one_to_wait_for() -> None:
    coordinator = Coordinator(ProcessInfo())
    coordinator.join()
    assert coordinator.all_gather("a", 1) == [1]
    assert coordinator.on_rank_zero(lambda: 5) == 5
    assert not coordinator.was_started()
    assert coordinator.report_failure(failure(0)) == failure(0)


def test_a_rank_that_does_not_come_is_named() -> None:
    infos = processes(3)[:2]

    def wait(process: ProcessInfo) -> str:
        with pytest.raises(MissingRankError) as error:
            Coordinator(process).join(0.5)
        time.sleep(0.5)
        return str(error.value)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(wait, infos))
    assert all("waiting for rank 2 (start)" in text for text in said), said


def test_a_meeting_point_that_nobody_keeps_is_named_in_time(refuses: Refuses) -> None:
    process = processes(2)[1]
    started = time.monotonic()
    with refuses(MissingRankError):
        Coordinator(process).join(1.0)
    assert time.monotonic() - started < 20


def test_a_port_that_another_program_has_is_said(refuses: Refuses) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = ProcessInfo(
            world_size=2, launcher="slurm", store=f"127.0.0.1:{other.getsockname()[1]}", hosts_store=True
        )
        with refuses(MissingRankError):
            Coordinator(process).join(1.0)


def test_the_rank_that_differs_is_named_on_all() -> None:
    found = together(processes(3), lambda m: compare(m, "facts", {"code": "old" if m.process.rank == 2 else "new"}))
    assert [type(error) for error in found] == [ValueError] * 3
    assert all("code: old on rank 2" in str(e) and "new on rank 0" in str(e) for e in found)


def test_ranks_started_as_different_numbers_are_refused() -> None:
    first, second = processes(2)
    found = together([first, replace(second, world_size=3)], lambda m: None)
    assert any("started as one of 3 processes" in str(error) for error in found)


def test_the_first_failure_is_everyone_s() -> None:
    def fail(coordinator: Coordinator) -> Failure:
        if coordinator.process.rank == 1:
            coordinator.report_failure(failure(1, "the cause"))
        else:
            with pytest.raises(PeerFailedError):
                coordinator.all_gather("never", 0)
        return coordinator.report_failure(failure(coordinator.process.rank, "a victim"))

    assert together(processes(3), fail) == [failure(1, "the cause")] * 3


def test_a_store_behind_a_cut_cable_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = threading.Event()

    class Silent(dist.HashStore):  # type: ignore[misc, name-defined]
        def compare_set(self, *_: str) -> bytes:
            silence.wait(60)
            return b""

    monkeypatch.setattr(coordinator_module, "DRAIN_SECONDS", 0.1)
    monkeypatch.setattr(coordinator_module, "connect", lambda *_: None)
    monkeypatch.setattr(coordinator_module, "PrefixStore", lambda prefix, store: Silent())
    coordinator = Coordinator(ProcessInfo(launcher="slurm"))
    coordinator.join()
    mine = describe_error(RuntimeError("a fault"), coordinator.process)
    assert coordinator.report_failure(mine) is mine
    silence.set()


def test_who_waits_for_a_rank_that_failed_stops_waiting() -> None:
    def work(coordinator: Coordinator) -> None:
        if coordinator.process.rank == 1:
            coordinator.report_failure(failure(1, "disk on fire"))
        else:
            coordinator.all_gather("data", 0, 60.0)

    error = together(processes(2), work)[0]
    assert isinstance(error, PeerFailedError)
    assert "rank 1 on h: disk on fire" in str(error)


def test_a_run_that_was_started_is_known_in_the_next_round() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        store = f"127.0.0.1:{probe.getsockname()[1]}"
    keep = Coordinator(ProcessInfo(launcher="slurm", store=store, hosts_store=True, round="a"))
    keep.join(5.0)
    assert not keep.was_started()
    keep.mark_started()
    again = Coordinator(ProcessInfo(launcher="slurm", store=store, round="b"))
    again.join(5.0)
    assert again.was_started()
    other = Coordinator(ProcessInfo(launcher="slurm", store=store, run_id="other"))
    other.join(5.0)
    assert not other.was_started()


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ValueError("optimizer.lr: 0"), "user", ExitCode.WRONG_INPUT),
        (FileNotFoundError("no a.json"), "user", ExitCode.WRONG_INPUT),
        (MissingRankError("rank 3"), "missing", ExitCode.RANK_MISSING),
        (IndexError("bug"), "crash", ExitCode.FAILED),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "network", ExitCode.FAILED),
        (PeerFailedError("rank 1"), "network", ExitCode.FAILED),
    ],
)
def test_what_an_error_is(error: Exception, kind: str, code: int) -> None:
    found = describe_error(error, ProcessInfo(rank=3, world_size=4))
    assert (found.kind, found.code, found.rank) == (kind, code, 3)
    assert bool(found.trace) == (kind in ("crash", "network"))


@pytest.mark.parametrize("bug", [IndexError("the bug"), SystemExit("the bug"), SystemExit(0)])
def test_a_failure_is_told_once_and_the_code_is_the_cause_s(
    bug: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(coordinator: Coordinator) -> int:
        if coordinator.process.rank == 1:
            raise bug
        coordinator.all_gather("never", 0)
        return 0

    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda process: run_worker(process, work), processes(3)))
    error = capfd.readouterr().err
    assert codes == [ExitCode.FAILED] * 3
    assert error.count("Traceback") == 1
    assert error.rstrip().splitlines()[-1].endswith(f"{type(bug).__name__}: {bug}")
    assert "rank 1 on " in error


def process_failure(
    tmp_path: Path, rank: int, code: int, failure: Failure | None = None, is_own: bool = True
) -> ProcessFailure:
    path = tmp_path / f"{rank}.json"
    if failure is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
            assert write_error_file(failure, is_own=is_own)
        assert json.loads(path.read_text())["detkit"]["is_own"] == is_own
    return ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file=str(path))


def test_the_root_of_several_failures(tmp_path: Path) -> None:
    network = process_failure(tmp_path, 0, 1, failure(0, "closed by peer", kind="network"))
    crash = process_failure(tmp_path, 1, 1, failure(1, "bug"))
    killed, ended = process_failure(tmp_path, 2, -signal.SIGKILL), process_failure(tmp_path, 3, -signal.SIGTERM)
    heard = process_failure(tmp_path, 4, 1, failure(9, "far away", host="other"), is_own=False)
    assert root_cause({0: network, 1: crash, 2: killed, 3: ended})[0].text == "bug"
    found, here = root_cause({0: network, 2: killed, 3: ended})
    assert (found.rank, found.code, here) == (2, 137, True)
    assert "SIGKILL" in found.text
    assert root_cause({0: network, 3: ended})[0].text == "closed by peer"
    assert root_cause({3: ended, 4: heard}) == (failure(9, "far away", host="other"), False)
    stopped = process_failure(tmp_path, 5, 143)
    assert root_cause({3: ended, 5: stopped})[0].code == 143


def test_without_an_agent_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert not write_error_file(failure(0), is_own=True)


def test_what_a_worker_needs_at_first_is_not_torch() -> None:
    code = "import sys, detkit.cli, detkit.train.cli, detkit.distributed.process_info; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "a minute", ""])
def test_the_time_to_connect_is_a_number_of_seconds(
    refuses: Refuses, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connect_seconds() == 45.0
    monkeypatch.setenv("DETKIT_CONNECT_SECONDS", "300")
    assert connect_seconds() == 300.0
    monkeypatch.setenv("DETKIT_CONNECT_SECONDS", text)
    with refuses(ValueError):
        connect_seconds()
