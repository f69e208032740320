from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.runs.environment import git_revision
from detkit.runs.folder import (
    CONFIG,
    LOCK,
    init_run_folder,
    lock_run_folder,
    note_growing,
    run_files,
    write_own,
    write_text,
)
from detkit.utils.outputs import LEDGER, Ledger
from tests.refusals import Refuses


def test_a_run_is_not_overwritten_by_accident(refuses: Refuses, tmp_path: Path) -> None:
    init_run_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with refuses(ValueError):
        init_run_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "checkpoints/step_00000005.pt").touch()
    with refuses(ValueError):
        init_run_folder(tmp_path, resume=False, overwrite=False)
    init_run_folder(tmp_path, resume=True, overwrite=False)
    assert (tmp_path / "metrics.jsonl").exists()
    init_run_folder(tmp_path, resume=False, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [LEDGER, "notes.txt"]


def test_the_log_of_a_failed_start_is_no_run(tmp_path: Path) -> None:
    init_run_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "log.txt").write_text("2026-11-26 00:44:35,318 ERROR no such data set\n")
    init_run_folder(tmp_path, resume=False, overwrite=False)
    assert not (tmp_path / "log.txt").exists()


MINE: dict[str, str] = {
    "config.yaml": "# mine\nseed: 1\n", "environment.json": "{}", "result.json": '{"ap": 1}', "metrics.jsonl": "{}",
    "log.txt": "dear diary", "log_rank1.txt": "dear diary", "profile_rank0.json": "{}", "curves.png": "drawn by hand",
    "predictions.png": "drawn by hand", "tensorboard": "a file", "checkpoints": "a file",
    "checkpoints/best.pt": "of another toolkit",
}  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", MINE)
def test_a_file_that_detkit_did_not_write_is_named_and_stays(
    refuses: Refuses, name: str, overwrite: bool, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(MINE[name])
    with refuses(ValueError):
        init_run_folder(tmp_path, resume=False, overwrite=overwrite)
    assert (tmp_path / name).read_text() == MINE[name]


LIKE_OURS = {
    "log.txt": "2026-11-26 00:44:35,318 INFO the form that Python's logging gives everyone\n",
    "log_rank1.txt": "", "metrics.jsonl": '{"step": 1, "loss": 2.0}\n',
    "profile_rank0.json": '{"schemaVersion": 1}', "checkpoints/step_00000100.pt": "of another toolkit",
}  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", LIKE_OURS)
def test_a_file_that_looks_like_a_run_s_is_a_run_s_only_in_its_folder(
    refuses: Refuses, name: str, overwrite: bool, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(LIKE_OURS[name])
    with refuses(ValueError):
        init_run_folder(tmp_path, resume=False, overwrite=overwrite)
    assert (tmp_path / name).read_text() == LIKE_OURS[name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_event_files_of_another_program_stay(overwrite: bool, tmp_path: Path) -> None:
    events = tmp_path / "tensorboard/events.out.tfevents.1.host.2.0"
    events.parent.mkdir()
    events.write_text("mine")
    init_run_folder(tmp_path, resume=False, overwrite=overwrite)
    (own := events.with_name("events.out.tfevents.2")).touch()
    note_growing(tmp_path, [own])
    init_run_folder(tmp_path, resume=False, overwrite=True)
    assert [path.read_text() for path in events.parent.iterdir()] == ["mine"]


def old_run(folder: Path) -> None:
    """The files of a run, as detkit wrote them before there were ledgers."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "tensorboard").mkdir()
    (folder / CONFIG).write_text("imports: []\nseed: 0\ndata:\n  loader:\n    pad_to: null\n")
    (folder / "environment.json").write_text('{"command": "detkit", "versions": {"detkit": "0.1.0"}}')
    (folder / "result.json").write_text('{"ap": 0.5, "versions": {"detkit": "0.1.0"}}')
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (folder / "log.txt").write_text("2026-11-26 00:44:35,318 INFO step 1\n")
    (folder / "checkpoints/step_00000001.pt").write_bytes(b"PK")
    (folder / "checkpoints/best.pt").write_bytes(b"PK\ndetkit-sha256 " + 64 * b"0" + b"\n")
    (folder / "tensorboard/events.out.tfevents.1.host.2.0").write_text("")
    for name in ("curves.png", "predictions.png"):
        (folder / name).write_text("picture")


def test_a_run_from_before_there_were_ledgers_is_known_and_replaced_without_its_neighbours(tmp_path: Path) -> None:
    old_run(tmp_path)
    kept = ["checkpoints/notes.md", "checkpoints/step_00000001_good.pt", "tensorboard/events", "tensorboard/mine.csv"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    init_run_folder(tmp_path, resume=True, overwrite=False)
    write_text(tmp_path / CONFIG, "seed: 1\n")  # and then it is killed: what the old detkit wrote is still known
    assert run_files(tmp_path)[1] == []
    init_run_folder(tmp_path, resume=False, overwrite=True)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == [LEDGER, *kept]


def test_only_what_stands_in_the_ledger_unchanged_is_replaced(tmp_path: Path) -> None:
    for text in ("seed: 0\n", "seed: 1\n"):
        write_text(tmp_path / CONFIG, text)
    write_text(tmp_path / "environment.json", "{}")
    (tmp_path / "environment.json").write_text('{"versions": {"detkit": "edited"}}')
    assert [path.name for path in run_files(tmp_path)[1]] == ["environment.json"]
    (tmp_path / "environment.json").write_text("{}")
    init_run_folder(tmp_path, resume=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER]
    assert list(Ledger(tmp_path).files) == ["log.txt"]


def test_a_config_that_was_edited_to_be_resumed_stays(refuses: Refuses, tmp_path: Path) -> None:
    assert write_own(tmp_path / CONFIG, "seed: 0\n")
    assert write_own(tmp_path / CONFIG, "seed: 1\n")
    (tmp_path / CONFIG).write_text("seed: 1  # lucky\n")
    init_run_folder(tmp_path, resume=True, overwrite=False)
    assert not write_own(tmp_path / CONFIG, "seed: 1\n")
    assert (tmp_path / CONFIG).read_text() == "seed: 1  # lucky\n"
    with refuses(ValueError):
        init_run_folder(tmp_path, resume=False, overwrite=True)


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_a_link_to_a_person_s_file_is_not_followed(refuses: Refuses, kind: str, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    log = tmp_path / "run/log.txt"
    log.symlink_to(tmp_path / "diary.txt") if kind == "link" else log.hardlink_to(tmp_path / "diary.txt")
    with refuses(ValueError):
        init_run_folder(tmp_path / "run", resume=True, overwrite=False)


def test_a_place_where_no_run_can_be_written_is_told_with_the_way_out(refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for path in (
        tmp_path / "file",
        tmp_path / "file/run",
        tmp_path / "nowhere",
        tmp_path / ("x" * 300),
    ):
        with refuses((ValueError, OSError)) as caught:
            init_run_folder(path, resume=False, overwrite=False)
        assert str(caught.value).startswith("--output: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_git_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = git_revision(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert git_revision(tmp_path) == clean + "+changes"


HOLD = """
import os, sys, time
from pathlib import Path
from detkit.runs.folder import lock_run_folder
with lock_run_folder(Path(sys.argv[1])):
    child = os.fork()  # as a loader process, which may outlive its parent
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_folder_is_of_one_run_until_its_process_ends(refuses: Refuses, tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    child = int(other.stdout.readline())
    try:
        with (
            refuses(ValueError),
            lock_run_folder(tmp_path / "run", wait=0.3),
        ):
            pytest.fail("two runs in one folder")
        with lock_run_folder(tmp_path / "run", restarted=True):
            pass
        with lock_run_folder(tmp_path / "another", wait=0):
            pass
        other.kill()
        other.wait()
        with lock_run_folder(tmp_path / "run", wait=5):
            assert (tmp_path / "run" / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    finally:
        other.kill()
        os.kill(child, 9)
        other.communicate()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files")
def test_a_config_that_can_t_be_written_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / CONFIG, "seed: 0\n")
    script = f"""
import resource, signal
from pathlib import Path
from detkit.runs.folder import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
write_text(Path({str(tmp_path / CONFIG)!r}), "seed: 1" + 99 * " ")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert (tmp_path / CONFIG).read_text() == "seed: 0\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CONFIG, LEDGER])


def test_the_slurm_script_of_the_docs_resumes_what_can_be_resumed(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/failure.md").read_text()
    found = re.search(r"```bash\n(#!/bin/bash.*?)```", text, re.DOTALL)
    assert found is not None
    for name, body in (("srun", 'echo "$@"; exit 143'), ("scontrol", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def run() -> str:
        environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
        return subprocess.run(
            ["bash", "-c", found[1]], cwd=tmp_path, env=environ, capture_output=True, text=True
        ).stdout

    command = "--kill-on-bad-exit=1 detkit train CONFIG --output runs/large"
    assert run() == f"{command} --overwrite\nrequeue 12\n"
    saved = tmp_path / "runs/large/checkpoints"
    saved.mkdir(parents=True)  # killed before, or while, its first checkpoint was written
    (saved / "step_00000500.pt.7.tmp").touch()
    assert run() == f"{command} --overwrite\nrequeue 12\n"
    (saved / "step_00000500.pt").touch()
    assert run() == f"{command} --resume\nrequeue 12\n"
