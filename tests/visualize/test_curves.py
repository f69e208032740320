from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detkit.visualize import plot_curves
from detkit.visualize.curves import read_metrics
from tests.refusals import Refuses


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def step(n: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"step": n, "loss": loss, "loss_classification": 0.4, "loss_box": 0.6, "lr": 0.01}


def evaluation(n: int, ap: float | None) -> dict[str, Any]:
    return {"step": n, "eval": {"ap": ap, "ap50": ap, "ap75": ap, "ap_small": None}}


def test_after_a_resume_the_later_line_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", step(1), step(2, 5.0), evaluation(2, 0.1), step(2, 3.0), evaluation(2, 0.2))
    train, evals = read_metrics(path)
    assert [(line["step"], line["loss"]) for line in train] == [(1, 1.0), (2, 3.0)]
    assert [(line["step"], line["ap"]) for line in evals] == [(2, 0.2)]


def test_a_last_line_cut_off_is_left_out_but_no_other(refuses: Refuses, tmp_path: Path) -> None:
    train, _ = read_metrics(write(tmp_path / "a.jsonl", step(1), '{"step": 2, "lo'))
    assert len(train) == 1
    with refuses(ValueError):
        read_metrics(write(tmp_path / "b.jsonl", '{"step": 2, "lo', step(3)))


@pytest.mark.parametrize(
    "lines",
    [
        [step(n, 1 / n) for n in range(1, 50)] + [evaluation(40, 0.5)],
        [step(1)],
        [evaluation(10, None)],
        [step(1, 0.0), step(2, None)],
    ],
)
def test_draws_a_picture_of_whatever_there_is(tmp_path: Path, lines: list[Any]) -> None:
    out = plot_curves(write(tmp_path / "m.jsonl", *lines), tmp_path / "new" / "curves.png", title="run")
    image = np.asarray(Image.open(out).convert("L"))
    assert image.shape[1] > 1000
    assert (image < 128).mean() > 0.001


def test_other_curves_give_another_picture(tmp_path: Path) -> None:
    pictures = [
        plot_curves(write(tmp_path / "m.jsonl", step(1), step(9, loss)), tmp_path / f"{loss}.png").read_bytes()
        for loss in (1.0, 2.0)
    ]
    assert pictures[0] != pictures[1]


def test_an_empty_file_is_an_error(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        plot_curves(write(tmp_path / "m.jsonl", ""), tmp_path / "curves.png")
