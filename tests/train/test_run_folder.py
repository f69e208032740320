from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.train.run_folder import CONFIG, LOCK, claimed, git_revision, prepare_folder, write_text


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no checkpoint to go on from; replace it by --overwrite"):
        prepare_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "checkpoints/step_00000005.pt").touch()
    with pytest.raises(ValueError, match=r"--resume.*--overwrite"):
        prepare_folder(tmp_path, resume=False, overwrite=False)
    prepare_folder(tmp_path, resume=True, overwrite=False)
    assert (tmp_path / "metrics.jsonl").exists()
    prepare_folder(tmp_path, resume=False, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_log_of_a_failed_start_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("no such data set")
    prepare_folder(tmp_path, resume=False, overwrite=False)


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
from detkit.train.run_folder import claimed
with claimed(Path(sys.argv[1])):
    child = os.fork()  # as a loader process, which may outlive its parent
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_folder_is_of_one_run_until_its_process_ends(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    child = int(other.stdout.readline())
    try:
        with (
            pytest.raises(ValueError, match=f"in use: process {other.pid} on .* trains in it.*--output"),
            claimed(tmp_path / "run", wait=0.3),
        ):
            pytest.fail("two runs in one folder")
        with claimed(tmp_path / "run", restarted=True):
            pass
        with claimed(tmp_path / "another", wait=0):
            pass
        other.kill()
        other.wait()
        with claimed(tmp_path / "run", wait=5):
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
from detkit.train.run_folder import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
write_text(Path({str(tmp_path / CONFIG)!r}), "seed: 1" + 99 * " ")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert (tmp_path / CONFIG).read_text() == "seed: 0\n"
    assert [p.name for p in tmp_path.iterdir()] == [CONFIG]


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
