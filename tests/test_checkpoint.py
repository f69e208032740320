from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detkit import checkpoint as module
from detkit.checkpoint import (
    Checkpoint,
    CheckpointError,
    DiskFullError,
    as_full_disk,
    last_good,
    load_checkpoint,
    read_checkpoint,
    remove_old,
    save_checkpoint,
    saved_steps,
    step_path,
)
from detkit.structures import ClassMap
from detkit.utils.errors import find_disk_full
from tests.refusals import Refuses


def make(step: int = 3) -> Checkpoint:
    return Checkpoint(
        step=step,
        seed=7,
        model={"a.weight": torch.arange(2000.0) + step, "a.count": torch.tensor(step)},
        ema={"a.weight": torch.zeros(5)},
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.99)}]},
        scaler={},
        config={"seed": 7, "list": [1, None, "x"]},
        classes=ClassMap(("cat", "dog"), (1, 90)),
        train_seconds=1.5,
        best_ap=0.25,
    )


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make())
    back = read_checkpoint(path)
    assert torch.equal(back.model["a.weight"], make().model["a.weight"])
    plain = replace(back, model={}, ema=None, optimizer=None, version="", path=None)
    assert plain == replace(make(), model={}, ema=None, optimizer=None)
    assert back.optimizer is not None
    assert back.optimizer["param_groups"] == [{"betas": (0.9, 0.99)}]
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_plain_torch_opens_it_safely(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make())
    assert torch.load(path, weights_only=True)["step"] == 3


@pytest.mark.parametrize("length", [0, 50, 3000, -1])
def test_a_truncated_file_is_refused(refuses: Refuses, tmp_path: Path, length: int) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make())
    path.write_bytes(path.read_bytes()[:length])
    with refuses(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("place", [10, 0.5, -90, -20])
def test_an_altered_byte_is_refused(refuses: Refuses, tmp_path: Path, place: float) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make())
    content = bytearray(path.read_bytes())
    at = int(place * len(content)) if isinstance(place, float) else int(place)
    content[at] = ord("0") if content[at] != ord("0") else ord("1")
    path.write_bytes(content)
    with refuses(CheckpointError):
        read_checkpoint(path)


def test_a_foreign_or_newer_file_is_refused(refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    with refuses(CheckpointError):
        read_checkpoint(tmp_path / "foreign.pt")
    with monkeypatch.context() as newer:
        newer.setattr(module, "FORMAT_WITHOUT_HOOKS", module.FORMAT + 1)
        path = save_checkpoint(tmp_path / "newer.pt", make())
    with refuses(CheckpointError):
        read_checkpoint(path)


def test_a_failed_write_leaves_the_old_file(refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make(3))

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with refuses(OSError):
        save_checkpoint(path, make(4))
    assert read_checkpoint(path).step == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_run_folder_gives_the_newest_intact_one(
    refuses: Refuses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 10, 15):
        save_checkpoint(step_path(tmp_path, step), make(step))
    assert load_checkpoint(tmp_path, prefer="newest").step == 15
    newest = step_path(tmp_path, 15)
    newest.write_bytes(newest.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, logger="detkit"):
        assert load_checkpoint(tmp_path, prefer="newest").step == 10
    assert "step_00000015.pt" in caplog.text
    with refuses(CheckpointError):
        load_checkpoint(newest)


def test_a_run_folder_prefers_its_best(tmp_path: Path) -> None:
    save_checkpoint(step_path(tmp_path, 15), make(15))
    assert load_checkpoint(tmp_path).step == 15
    save_checkpoint(tmp_path / "checkpoints" / "best.pt", make(5))
    assert load_checkpoint(tmp_path).step == 5
    assert load_checkpoint(tmp_path, prefer="newest").step == 15


def test_nothing_to_load_says_so(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(CheckpointError):
        load_checkpoint(tmp_path)
    with refuses(CheckpointError):
        load_checkpoint(tmp_path / "nowhere")
    step_path(tmp_path, 5).parent.mkdir()
    step_path(tmp_path, 5).write_bytes(b"half")
    with refuses(CheckpointError):
        load_checkpoint(tmp_path)


def test_old_ones_and_leftovers_go(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_checkpoint(step_path(tmp_path, step), make(step))
    (tmp_path / "checkpoints" / "step_00000020.pt.99.tmp").write_bytes(b"half")
    remove_old(tmp_path, keep=2)
    assert [p.name for p in saved_steps(tmp_path)] == ["step_00000015.pt", "step_00000010.pt"]
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_it_says_so_and_the_last_one_stays_good(small_disk: Path) -> None:
    good = save_checkpoint(step_path(small_disk, 3), make(3))
    big = replace(make(4), model={"a": torch.zeros(700_000)})
    with pytest.raises(DiskFullError) as caught:
        save_checkpoint(step_path(small_disk, 4), big)
    text = str(caught.value)
    assert caught.value.exit_code == 5
    assert f"{step_path(small_disk, 4)} (2.7 MiB) can't be written" in text
    assert "No space left on device. Free on that file system: 2.0 MiB" in text
    assert f"last good checkpoint: {good}" in text
    assert "--resume" in text
    assert load_checkpoint(small_disk, prefer="newest").step == 3
    assert [p.name for p in good.parent.iterdir()] == [good.name], "the half-written file is gone"


def test_a_limit_on_the_size_of_files_is_a_full_disk_too(tmp_path: Path) -> None:
    """The same without rights: the system refuses the write in the middle of the file."""
    program = f"""
import resource, signal, torch
from pathlib import Path
from detkit.structures import ClassMap
from detkit.checkpoint import Checkpoint, DiskFullError, save_checkpoint, step_path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = Path({str(tmp_path)!r})
def save(step, numbers):
    model = {{"a": torch.zeros(numbers)}}
    save_checkpoint(
        step_path(run, step), Checkpoint(step=step, seed=0, model=model, config={{}}, classes=ClassMap(("a",), (1,)))
    )
save(1, 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save(2, 100_000)
except DiskFullError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert f"{step_path(tmp_path, 2)} (0.4 MiB) can't be written: File too large" in done.stdout
    assert f"last good checkpoint: {step_path(tmp_path, 1)}" in done.stdout
    assert load_checkpoint(tmp_path).step == 1


def test_the_last_good_one_is_intact(tmp_path: Path) -> None:
    assert last_good(tmp_path) is None
    for step in (5, 10):
        save_checkpoint(step_path(tmp_path, step), make(step))
    newest = step_path(tmp_path, 10)
    assert last_good(tmp_path) == newest
    newest.write_bytes(newest.read_bytes()[:-50])
    assert last_good(tmp_path) == step_path(tmp_path, 5)


def test_a_full_disk_names_the_way_that_is_open(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "full")
    assert str(as_full_disk(full, tmp_path)).endswith("then start again with --overwrite")
    save_checkpoint(step_path(tmp_path, 3), make(3))
    assert str(as_full_disk(full, tmp_path)).endswith("then resume with --resume")


def test_an_error_that_is_its_own_cause_is_no_full_disk() -> None:
    error = RuntimeError("a fault")
    error.__cause__ = error
    assert find_disk_full(error) is None
