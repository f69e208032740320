from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detkit.runs.metrics import MetricsFile, read_metrics
from tests.refusals import Refuses


def steps(path: Path) -> list[tuple[int, bool]]:
    return [(r["step"], "val/ap" in r) for r in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def test_lines_beyond_the_resume_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(1, 6):
        file.write({"step": step, "train/loss": 1.0})
        file.write({"step": step, "val/ap": 0.5})
    with path.open("a") as raw:
        raw.write('{"step": 6, "lo')
    file = MetricsFile(path, step=3)
    file.write({"step": 3, "val/ap": 0.5})
    file.write({"step": 4, "train/loss": 2.0})
    assert steps(path) == [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True), (4, False)]


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).write({"step": 1, "train/loss": 1.0})
    MetricsFile(path)
    assert path.read_text() == ""


def test_lines_are_on_disk_at_once_and_valid_json(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write({"step": 1, "train/gradient_norm": float("inf")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "train/gradient_norm": None}


def test_a_damaged_line_is_named(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n\0\0\0\n{"step": 3}\n')
    with refuses(ValueError):
        MetricsFile(path, step=3)
    assert path.read_text().count("\n") == 3


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def test_after_a_resume_the_later_line_counts(tmp_path: Path) -> None:
    lines = [{"step": step, "train/loss": loss} for step, loss in ((1, 1.0), (2, 5.0), (2, 3.0))]
    evals = [{"step": 2, "val/ap": ap} for ap in (0.1, 0.2)]
    train, evaluations = read_metrics(write(tmp_path / "m.jsonl", *lines[:2], evals[0], lines[2], evals[1]))
    assert train == [lines[0], lines[2]]
    assert evaluations == [{"step": 2, "val/ap": 0.2}]


@pytest.mark.parametrize("cut_off", ['{"step": 2, "lo', "[1]", ""])
def test_a_last_line_cut_off_is_left_out_but_no_other(refuses: Refuses, tmp_path: Path, cut_off: str) -> None:
    step = {"step": 1, "train/loss": 1.0}
    assert read_metrics(write(tmp_path / "a.jsonl", step, cut_off)) == ([step], [])
    with refuses(ValueError):
        read_metrics(write(tmp_path / "b.jsonl", cut_off, step))


OLD_STEP = {
    "step": 20, "loss": 3.0, "loss_classification": 1.0, "loss_box": 2.0, "lr": 0.1, "gradient_norm": 4.0,
    "normalizer": 7.0, "images": 8, "seconds": 0.5, "data_seconds": 0.1, "train_seconds": 9.0,
    "peak_memory_mb": 500.0, "skipped": True,
}  # fmt: skip
NEW_STEP = {
    "step": 20, "train/loss": 3.0, "train/loss/classification": 1.0, "train/loss/box": 2.0, "lr": 0.1,
    "train/gradient_norm": 4.0, "train/normalizer": 7.0, "train/images": 8, "time/step": 0.5, "time/data": 0.1,
    "time/train": 9.0, "memory/peak_mb": 500.0, "train/skipped": True,
}  # fmt: skip
OLD_EVALUATION = {"step": 20, "eval": {"ap": 0.5, "per_class": {"cat": {"ap": 0.5}}}}
NEW_EVALUATION = {"step": 20, "val/ap": 0.5, "val/per_class": {"cat": {"ap": 0.5}}}


def test_the_names_of_an_older_detkit_become_canonical(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", OLD_STEP, OLD_EVALUATION)
    assert read_metrics(path) == ([NEW_STEP], [NEW_EVALUATION])
    MetricsFile(path, step=20).write({"step": 20, "val/ap": 0.9})
    assert list(map(json.loads, path.read_text().splitlines())) == [NEW_STEP, NEW_EVALUATION], "rewritten at a resume"


def test_what_hooks_record_completes_the_step_and_stands_in_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for start in (0, 1):
        file = MetricsFile(path, step=start)
        file.write({"step": 1, "train/loss": 1.0})
        file.write({"step": 1, "lr/neck": 0.1})
        file.write({"step": 1, "lr/head": 0.2})
        file.close()
    assert path.read_text().count("\n") == 3
    assert read_metrics(path) == ([{"step": 1, "train/loss": 1.0, "lr/neck": 0.1, "lr/head": 0.2}], [])
