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
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from detkit.distributed import group
from detkit.distributed.environment import Place
from detkit.distributed.failure import (
    CRASHED,
    MISSING,
    WRONG_INPUT,
    MissingRankError,
    Note,
    PeerFailedError,
    describe,
    root_cause,
    write_error_file,
)
from detkit.distributed.group import Meeting, connect_seconds
from detkit.distributed.preflight import compare
from detkit.distributed.worker import run_worker


def places(count: int, **more: Any) -> list[Place]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        store = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        Place(rank=r, world_size=count, local_rank=r, local_world_size=count, launcher="slurm", store=store,
              hosts_store=r == 0, **more)
        for r in range(count)
    ]  # fmt: skip


def together(spots: list[Place], work: Callable[[Meeting], Any]) -> list[Any]:
    """What each rank's work gives back or raises; all stay until the last is done, as the first keeps the store."""
    done = threading.Barrier(len(spots))

    def one(place: Place) -> Any:
        meeting = Meeting(place)
        try:
            meeting.join(5.0)
            return work(meeting)
        except Exception as error:
            return error
        finally:
            done.wait()

    with ThreadPoolExecutor(len(spots)) as pool:
        return list(pool.map(one, spots))


def note(rank: int, text: str = "x", **more: Any) -> Note:
    return Note(**{"rank": rank, "host": "h", "code": CRASHED, "kind": "crash", "text": text} | more)


def test_values_come_by_rank() -> None:
    found = together(places(3), lambda m: (m.gather("a", m.place.rank * 10), m.gather("b", [m.place.rank])))
    assert found == [([0, 10, 20], [[0], [1], [2]])] * 3


def test_alone_there_is_no_one_to_wait_for() -> None:
    meeting = Meeting(Place())
    meeting.join()
    assert meeting.gather("a", 1) == [1]
    assert meeting.first(lambda: 5) == 5
    assert not meeting.was_started()
    assert meeting.post(note(0)) == note(0)


def test_a_rank_that_does_not_come_is_named() -> None:
    spots = places(3)[:2]

    def wait(place: Place) -> str:
        with pytest.raises(MissingRankError) as error:
            Meeting(place).join(0.5)
        time.sleep(0.5)
        return str(error.value)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(wait, spots))
    assert all("no word from rank 2 (start)" in text for text in said), said


def test_a_meeting_point_that_nobody_keeps_is_named_in_time() -> None:
    place = places(2)[1]
    started = time.monotonic()
    with pytest.raises(MissingRankError, match=rf"can't reach rank 0 at {place.store} within 1 s"):
        Meeting(place).join(1.0)
    assert time.monotonic() - started < 20


def test_a_port_that_another_program_has_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = Place(world_size=2, launcher="slurm", store=f"127.0.0.1:{other.getsockname()[1]}", hosts_store=True)
        with pytest.raises(MissingRankError, match=r"another program .* set MASTER_PORT"):
            Meeting(place).join(1.0)


def test_the_rank_that_differs_is_named_on_all() -> None:
    found = together(places(3), lambda m: compare(m, "facts", {"code": "old" if m.place.rank == 2 else "new"}))
    assert [type(error) for error in found] == [ValueError] * 3
    assert all("code: old on rank 2" in str(e) and "new on rank 0" in str(e) for e in found)


def test_ranks_started_as_different_numbers_are_refused() -> None:
    first, second = places(2)
    found = together([first, replace(second, world_size=3)], lambda m: None)
    assert any("started as one of 3 processes" in str(error) for error in found)


def test_the_first_failure_is_everyone_s() -> None:
    def fail(meeting: Meeting) -> Note:
        if meeting.place.rank == 1:
            meeting.post(note(1, "the cause"))
        else:
            with pytest.raises(PeerFailedError):
                meeting.gather("never", 0)
        return meeting.post(note(meeting.place.rank, "a victim"))

    assert together(places(3), fail) == [note(1, "the cause")] * 3


def test_a_store_behind_a_cut_cable_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = threading.Event()

    class Silent:
        def compare_set(self, *_: str) -> bytes:
            silence.wait(60)
            return b""

    monkeypatch.setattr(group, "LEAVE_SECONDS", 0.1)
    meeting = Meeting(Place(rank=1, world_size=2))
    meeting._store = Silent()
    note = describe(RuntimeError("a fault"), meeting.place)
    assert meeting.post(note) is note
    silence.set()


def test_who_waits_for_a_rank_that_failed_stops_waiting() -> None:
    def work(meeting: Meeting) -> None:
        if meeting.place.rank == 1:
            meeting.post(note(1, "disk on fire"))
        else:
            meeting.gather("data", 0, 60.0)

    error = together(places(2), work)[0]
    assert isinstance(error, PeerFailedError)
    assert "rank 1 on h: disk on fire" in str(error)


def test_a_run_that_was_started_is_known_in_the_next_round() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        store = f"127.0.0.1:{probe.getsockname()[1]}"
    keep = Meeting(Place(launcher="slurm", store=store, hosts_store=True, round="a"))
    keep.join(5.0)
    assert not keep.was_started()
    keep.mark_started()
    again = Meeting(Place(launcher="slurm", store=store, round="b"))
    again.join(5.0)
    assert again.was_started()
    other = Meeting(Place(launcher="slurm", store=store, run_id="other"))
    other.join(5.0)
    assert not other.was_started()


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ValueError("optimizer.lr: 0"), "user", WRONG_INPUT),
        (FileNotFoundError("no a.json"), "user", WRONG_INPUT),
        (MissingRankError("rank 3"), "missing", MISSING),
        (IndexError("bug"), "crash", CRASHED),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "network", CRASHED),
        (PeerFailedError("rank 1"), "network", CRASHED),
    ],
)
def test_what_an_error_is(error: Exception, kind: str, code: int) -> None:
    found = describe(error, Place(rank=3, world_size=4))
    assert (found.kind, found.code, found.rank) == (kind, code, 3)
    assert bool(found.trace) == (kind in ("crash", "network"))


@pytest.mark.parametrize("bug", [IndexError("the bug"), SystemExit("the bug"), SystemExit(0)])
def test_a_failure_is_told_once_and_the_code_is_the_cause_s(
    bug: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(meeting: Meeting) -> int:
        if meeting.place.rank == 1:
            raise bug
        meeting.gather("never", 0)
        return 0

    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda place: run_worker(place, work), places(3)))
    error = capfd.readouterr().err
    assert codes == [CRASHED] * 3
    assert error.count("Traceback") == 1
    assert error.rstrip().splitlines()[-1].endswith(f"{type(bug).__name__}: {bug}")
    assert "rank 1 on " in error


def failure(tmp_path: Path, rank: int, code: int, told: Note | None = None, own: bool = True) -> ProcessFailure:
    path = tmp_path / f"{rank}.json"
    if told is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
            assert write_error_file(told, own=own)
        assert json.loads(path.read_text())["detkit"]["own"] == own
    return ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file=str(path))


def test_the_root_of_several_failures(tmp_path: Path) -> None:
    network = failure(tmp_path, 0, 1, note(0, "closed by peer", kind="network"))
    crash = failure(tmp_path, 1, 1, note(1, "bug"))
    killed, ended = failure(tmp_path, 2, -signal.SIGKILL), failure(tmp_path, 3, -signal.SIGTERM)
    heard = failure(tmp_path, 4, 1, note(9, "far away", host="other"), own=False)
    assert root_cause({0: network, 1: crash, 2: killed, 3: ended})[0].text == "bug"
    found, here = root_cause({0: network, 2: killed, 3: ended})
    assert (found.rank, found.code, here) == (2, 137, True)
    assert "SIGKILL" in found.text
    assert root_cause({0: network, 3: ended})[0].text == "closed by peer"
    assert root_cause({3: ended, 4: heard}) == (note(9, "far away", host="other"), False)
    stopped = failure(tmp_path, 5, 143)
    assert root_cause({3: ended, 5: stopped})[0].code == 143


def test_without_an_agent_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert not write_error_file(note(0), own=True)


def test_what_a_worker_needs_at_first_is_not_torch() -> None:
    code = "import sys, detkit.cli, detkit.train.cli, detkit.distributed.environment; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "a minute", ""])
def test_the_time_to_connect_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect_seconds() == 45.0
    monkeypatch.setenv("DETKIT_CONNECT_SECONDS", "300")
    assert connect_seconds() == 300.0
    monkeypatch.setenv("DETKIT_CONNECT_SECONDS", text)
    with pytest.raises(ValueError, match=f"DETKIT_CONNECT_SECONDS={text}: must be a number of seconds above 0"):
        connect_seconds()
