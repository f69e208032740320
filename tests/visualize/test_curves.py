from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detkit.visualize import plot_curves
from tests.refusals import Refuses


def plot(path: Path, *entries: dict[str, Any]) -> Path:
    train = [entry for entry in entries if "train/loss" in entry]
    return plot_curves(train, [entry for entry in entries if "val/ap" in entry], path, title="run")


def step(n: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"step": n, "train/loss": loss, "train/loss/classification": 0.4, "train/loss/box": 0.6, "lr": 0.01}


def evaluation(n: int, ap: float | None) -> dict[str, Any]:
    return {"step": n, "val/ap": ap, "val/ap50": ap, "val/ap75": ap, "val/ap_small": None}


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
    out = plot(tmp_path / "new" / "curves.png", *lines)
    image = np.asarray(Image.open(out).convert("L"))
    assert image.shape[1] > 1000
    assert (image < 128).mean() > 0.001


def test_other_curves_give_another_picture(tmp_path: Path) -> None:
    pictures = [plot(tmp_path / f"{loss}.png", step(1), step(9, loss)).read_bytes() for loss in (1.0, 2.0)]
    assert pictures[0] != pictures[1]


def test_nothing_to_draw_is_an_error(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        plot(tmp_path / "curves.png")
