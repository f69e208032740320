"""The doctor's report."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

from detkit.native import doctor, library


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    code = doctor.run(parser.parse_args([]))
    return code, capsys.readouterr().out


def test_a_working_build_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    _, out = report(capsys)
    assert str(doctor.PACKAGE) in out
    assert f"torch     {torch.__version__}" in out
    assert "built     against torch " in out
    assert "cpu ops   work (" in out


def test_a_missing_build_gives_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "native", library.Native(False, False, "it is not there", "nor that"))
    monkeypatch.setattr(library, "build_info", lambda package: {})
    code, out = report(capsys)
    assert code == 1
    assert "cpu ops   MISSING: it is not there" in out
    assert "built     no build record in the package" in out
    assert "rebuild   detkit doctor --build" in out


def test_changed_sources_are_noticed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "build_info", lambda package: {"sources": "others"})
    code, out = report(capsys)
    assert code == 1
    assert "the native sources have changed" in out


def test_no_torch_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out = report(capsys)
    assert code == 1
    assert "torch     missing" in out


def test_a_second_copy_is_found(tmp_path: Path) -> None:
    assert doctor.copies([str(tmp_path), str(doctor.PACKAGE.parent)]) == []
    (tmp_path / "detkit").mkdir()
    (tmp_path / "detkit" / "__init__.py").touch()
    assert doctor.copies([str(tmp_path), str(doctor.PACKAGE.parent)]) == [(tmp_path / "detkit").resolve()]
