"""A run folder that detkit 0.1.0 wrote (tests/golden/run_0_1_0.zip): every later detkit evaluates and resumes it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from detkit.cli import main

GOLDEN = Path(__file__).parent / "golden" / "run_0_1_0.zip"
NEXT_LOSSES = [3.8004867313416617, 4.0428035093483325, 3.104534221999723]
"""Losses of steps 801 to 803, as detkit 0.1.0 computed them on the same machine when it resumed this run."""


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "run_0_1_0"


def test_an_old_run_evaluates_to_its_own_figures(old_run: Path, tmp_path: Path) -> None:
    assert main(["eval", str(old_run), "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    recorded = json.loads((old_run / "result.json").read_text(encoding="utf-8"))
    for key in ("ap", "ap50", "ap75", "ar100"):
        assert figures[key] == pytest.approx(recorded[key], rel=1e-3), key


def test_an_old_run_resumes(old_run: Path) -> None:
    assert main(["train", str(old_run / "config.yaml"), "--output", str(old_run), "--resume",
                 "train.iterations=803"]) == 0  # fmt: skip
    lines = [json.loads(line) for line in (old_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["train/loss"] for line in lines if line["step"] > 800 and "train/loss" in line]
    assert losses == pytest.approx(NEXT_LOSSES, rel=1e-4)
