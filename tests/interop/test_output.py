"""`detkit convert` writes over nothing but an earlier conversion, and says so before it reads the weights."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from detkit.cli import main
from detkit.interop import cli
from detkit.structures import ClassMap

CLASSES = ClassMap(("a",), (1,))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({"backbone.x": torch.ones(1), "head.x": torch.ones(1)}, path)
    return path


def converted(path: Path, **more: object) -> Path:
    values: dict[str, Any] = {
        "step": 0,
        "seed": 0,
        "model": {"w": torch.ones(1)},
        "config": {},
        "classes": CLASSES,
        **more,
    }
    return save_checkpoint(path, Checkpoint(**values | more))


def refusal(capsys: pytest.CaptureFixture[str], source: Path, output: Path | str, *words: str) -> str:
    assert main(["convert", "torchvision", str(source), "--output", str(output), *words]) == 2
    return capsys.readouterr().err


def test_the_source_stays_under_every_name_it_has(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source.read_bytes()
    (tmp_path / "linked.pth").symlink_to(source)
    os.link(source, tmp_path / "hard.pth")
    monkeypatch.chdir(tmp_path)
    for name in (source, "model.pth", "./model.pth", "linked.pth", "hard.pth"):
        assert "which is an input: choose another path" in refusal(capsys, source, name)
        assert "which is an input: choose another path" in refusal(capsys, Path("linked.pth"), name)
    assert source.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"my notes", pickle.dumps({})])
def test_a_file_that_detkit_did_not_write_stays(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any
) -> None:
    other = tmp_path / "notes.pt"
    other.write_bytes(content)
    assert f"{other} exists, and detkit did not write it" in refusal(capsys, source, other)
    assert other.read_bytes() == content


def test_the_classes_file_and_a_damaged_checkpoint_stay(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = tmp_path / "classes.json"
    classes.write_text('{"categories": [{"id": 1, "name": "a"}]}')
    assert "detkit did not write it" in refusal(capsys, source, classes, "--classes", str(classes))
    damaged = converted(tmp_path / "damaged.pt")
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert "detkit did not write it" in refusal(capsys, source, damaged)


@pytest.mark.parametrize("more", [{"step": 5}, {"optimizer": {"state": {}}}, {"data": {"train": "abc"}}])
def test_the_checkpoint_of_a_training_stays(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any]
) -> None:
    path = converted(tmp_path / "best.pt", **more)
    before = path.read_bytes()
    assert "is the checkpoint of a run" in refusal(capsys, source, path)
    assert path.read_bytes() == before


def test_an_earlier_conversion_is_replaced(source: Path, tmp_path: Path) -> None:
    path = converted(tmp_path / "out.pt")
    cli.check_output(path, str(source))
    cli.check_output(tmp_path / "new" / "deep" / "out.pt", str(source))
    assert read_checkpoint(path).step == 0


def test_a_folder_and_what_lies_below_a_file_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is a folder: name a file" in refusal(capsys, source, tmp_path)
    assert f"{source} is a file, not a folder" in refusal(capsys, source, source / "out.pt")


def test_it_is_refused_before_anything_is_read_or_fetched(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detkit.hub.local_path", lambda path: pytest.fail("read or fetched"))
    other = shutil.copy(source, tmp_path / "other.pth")
    assert "detkit did not write it" in refusal(capsys, Path("https://example.org/model.pth"), other)
