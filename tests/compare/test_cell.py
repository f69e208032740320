"""One run of a bench: what it writes down about its cost."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detkit.compare.cell import order_hash, seconds_per_step
from detkit.compare.cell_folder import read_curves
from detkit.compare.hashes import arrays_hash
from detkit.data.seeding import Layout, permutation
from detkit.runs.metrics import TRAIN_TIME, read_metrics


@pytest.mark.parametrize("name", [TRAIN_TIME, "train_seconds"])
def test_the_time_of_a_step_is_read_from_new_and_old_run_folders(name: str, tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, name: 0.5 * step}) for step in range(1, 21)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert seconds_per_step(read_metrics(tmp_path / "metrics.jsonl")[0]) == 0.5


def test_the_curve_of_a_joint_loss_has_no_class_and_no_box_loss(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "train/loss": 1.0, "train/loss/bag": 1.0}) for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    curve, _ = read_curves(tmp_path / "metrics.jsonl")
    assert curve == {"step": [1, 2], "loss": [1.0, 1.0], "loss_classification": [None] * 2, "loss_box": [None] * 2}


class Images:
    """Seven images that lie in two groups, or not."""

    def __init__(self, layout: Layout | None) -> None:
        self.layout = layout

    def __len__(self) -> int:
        return 7


def hash_of(layout: Layout | None) -> str:
    session: Any = SimpleNamespace(
        train_set=Images(layout), config=SimpleNamespace(seed=3), options=SimpleNamespace(iterations=5),
        loader_options=SimpleNamespace(batch_size=2),
    )  # fmt: skip
    return order_hash(session)


def test_the_order_of_a_bench_is_that_of_the_loader() -> None:
    keys = [(k // 7, int(permutation(3, k // 7, 7)[k % 7])) for k in range(10)]
    assert hash_of(None) == arrays_hash(np.array(keys, np.int64))
    group, sizes = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([100, 100])
    small, large = Layout(group, sizes, 100), Layout(group, sizes, 200)
    by_windows = [(e, int(small.permutation(3, e)[i])) for e, i in (divmod(k, 7) for k in range(10))]
    assert hash_of(large) == hash_of(None)
    assert hash_of(small) == arrays_hash(np.array(by_windows, np.int64)) != hash_of(None)
