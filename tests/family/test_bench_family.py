"""The bench that trains the family alike: its configs, and the table of docs/detectors.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.bench_family import CLASSES, FAMILY, command
from detkit.config import load_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("data", CLASSES)
def test_every_detector_has_the_same_body_and_images(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_FRUIT", "fruit")
    monkeypatch.chdir(ROOT)
    seen = set()
    for name in FAMILY:
        _, config, _, overlay, *overrides = command(name, data, None)
        read = load_config(config, overrides, overlays=[overlay])
        shared = (read.backbone.name, read.optimizer.lr, read.train.iterations, read.data.loader.batch_size)
        seen.add((*shared, read.data.train.dataset.type, read.train.precision))
    assert len(seen) == 1


def test_the_table_of_the_docs_is_that_of_the_results() -> None:
    results = [
        json.loads((ROOT / "benchmarks" / "results" / f"family_{x}.json").read_text()) for x in ("fruit", "shapes")
    ]
    fruit, shapes = ({row["name"]: row for row in result["rows"]} for result in results)
    assert list(fruit) == list(shapes) == list(FAMILY)
    page = (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8")
    for name in FAMILY:
        figures = [f"{row[name][key]:.3f}" for row in (fruit, shapes) for key in ("ap", "ap50")]
        assert f"| `{name}` | {' | '.join(figures)} |" in page
