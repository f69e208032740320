from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detkit.structures import ClassMap
from detkit.train import checkpoint as module
from detkit.train.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_checkpoint,
    remove_old,
    save_checkpoint,
    saved_steps,
    step_path,
)


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
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="cut off"):
        read_checkpoint(path)


@pytest.mark.parametrize("place", [10, 0.5, -90, -20])
def test_an_altered_byte_is_refused(tmp_path: Path, place: float) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make())
    content = bytearray(path.read_bytes())
    at = int(place * len(content)) if isinstance(place, float) else int(place)
    content[at] = ord("0") if content[at] != ord("0") else ord("1")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_a_foreign_or_newer_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="no complete detkit checkpoint"):
        read_checkpoint(tmp_path / "foreign.pt")
    monkeypatch.setattr(module, "FORMAT", 2)
    path = save_checkpoint(tmp_path / "newer.pt", make())
    monkeypatch.setattr(module, "FORMAT", 1)
    with pytest.raises(CheckpointError, match="format 2"):
        read_checkpoint(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path / "a.pt", make(3))

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, make(4))
    assert read_checkpoint(path).step == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_run_folder_gives_the_newest_intact_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (5, 10, 15):
        save_checkpoint(step_path(tmp_path, step), make(step))
    assert load_checkpoint(tmp_path, prefer="newest").step == 15
    newest = step_path(tmp_path, 15)
    newest.write_bytes(newest.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, logger="detkit"):
        assert load_checkpoint(tmp_path, prefer="newest").step == 10
    assert "step_00000015.pt" in caplog.text
    with pytest.raises(CheckpointError, match="cut off"):
        load_checkpoint(newest)


def test_a_run_folder_prefers_its_best(tmp_path: Path) -> None:
    save_checkpoint(step_path(tmp_path, 15), make(15))
    assert load_checkpoint(tmp_path).step == 15
    save_checkpoint(tmp_path / "checkpoints" / "best.pt", make(5))
    assert load_checkpoint(tmp_path).step == 5
    assert load_checkpoint(tmp_path, prefer="newest").step == 15


def test_nothing_to_load_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="there is no"):
        load_checkpoint(tmp_path / "nowhere")
    step_path(tmp_path, 5).parent.mkdir()
    step_path(tmp_path, 5).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="none of its 1"):
        load_checkpoint(tmp_path)


def test_old_ones_and_leftovers_go(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_checkpoint(step_path(tmp_path, step), make(step))
    (tmp_path / "checkpoints" / "step_00000020.pt.99.tmp").write_bytes(b"half")
    remove_old(tmp_path, keep=2)
    assert [p.name for p in saved_steps(tmp_path)] == ["step_00000015.pt", "step_00000010.pt"]
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))
