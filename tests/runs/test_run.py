"""`Run` on a folder that detkit 0.1.0 wrote."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from detkit.checkpoint import CheckpointError
from detkit.runs.run import Run
from tests.refusals import Refuses

GOLDEN = Path(__file__).parents[1] / "golden" / "run_0_1_0.zip"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(tmp_path)
    return Run(tmp_path / "run_0_1_0")


def test_everything_that_a_run_leaves_is_read(refuses: Refuses, run: Run) -> None:
    steps, evaluations = run.metrics(), run.evaluations()
    assert [entry["step"] for entry in steps] == list(range(1, 801))
    assert all(entry["train/loss"] > 0 for entry in steps)
    assert evaluations[-1]["step"] == run.result["step"] == run.config.train.iterations == 800
    assert evaluations[-1]["val/ap"] == run.result["ap"]
    assert run.checkpoint("best").step == run.checkpoint("last").step == run.checkpoint(800).step == 800
    with refuses(CheckpointError):
        run.checkpoint(7)


def test_it_predicts_and_draws(run: Run) -> None:
    predictor = run.predictor(device="cpu")
    (detections,) = predictor(torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert detections.boxes.shape[1:] == (4,)
    picture = run.plot()
    assert picture == run.folder / "curves.png"
    assert picture.stat().st_size > 1000


def test_a_folder_without_a_run_and_a_run_without_result_are_named(refuses: Refuses, run: Run, tmp_path: Path) -> None:
    with refuses(FileNotFoundError):
        Run(tmp_path)
    (run.folder / "result.json").unlink()
    with refuses(FileNotFoundError):
        _ = run.result
