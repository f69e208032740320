"""One run of a bench: what it writes down about its cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detkit.compare.cell import seconds_per_step
from detkit.runs.metrics import TRAIN_TIME, read_metrics


@pytest.mark.parametrize("name", [TRAIN_TIME, "train_seconds"])
def test_the_time_of_a_step_is_read_from_new_and_old_run_folders(name: str, tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, name: 0.5 * step}) for step in range(1, 21)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert seconds_per_step(read_metrics(tmp_path / "metrics.jsonl")[0]) == 0.5
