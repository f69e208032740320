from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from detkit.train.run_folder import git_revision, prepare_folder


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
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
