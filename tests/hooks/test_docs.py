"""The config and the hook of docs/hooks.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from detkit.cli import main
from detkit.hooks.base import Hook
from detkit.registry import HOOKS, LOGGERS
from detkit.runs.metrics import OLD_NAMES, read_metrics
from detkit.testing import check_hook
from tests.hooks.conftest import Small

PAGE = (Path(__file__).parents[2] / "docs/hooks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_first_config_trains(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = small.root / "overlay.yaml"
    overlay.write_text(BLOCKS[0][1], encoding="utf-8")
    words = ["--overlay", str(overlay), "train.iterations=2", "train.eval_every=1", "hooks.0.until=1"]
    assert main(["train", str(small.config()), *words, "--output", str(small.root / "run")]) == 0
    assert (small.root / "run/checkpoints/best_ap50.pt").exists()
    assert {p.name for p in (small.root / "run").iterdir()} >= {"scalars.csv", "status.json", "predictions"}


def test_the_hook_and_its_config_train_and_keep_the_contract(small: Small) -> None:
    code, overlay = BLOCKS[1][1], BLOCKS[2][1]
    assert "class StopOnHighLoss" in code
    (small.root / "my_hook.py").write_text(code, encoding="utf-8")
    (small.root / "overlay.yaml").write_text(overlay, encoding="utf-8")
    words = ["--overlay", str(small.root / "overlay.yaml"), "--output", str(small.root / "run")]
    with HOOKS.temporary():
        assert main(["train", str(small.config()), "train.iterations=2", "train.eval_every=0", *words]) == 0
        check_hook(HOOKS.get("StopOnHighLoss"))
    steps, _ = read_metrics(small.root / "run/metrics.jsonl")
    assert steps[-1]["train/highest_loss"] == max(step["train/loss"] for step in steps)


@pytest.mark.parametrize("registry", [HOOKS, LOGGERS], ids=lambda r: r.name)
def test_the_tables_name_every_part(registry: Any) -> None:
    own = [name for name in registry.names() if registry.get(name).__module__.startswith("detkit.")]
    assert [name for name in own if f"| `{name}`" not in PAGE] == []


def test_the_page_names_every_method_and_every_figure() -> None:
    methods = [name for name, value in vars(Hook).items() if callable(value) and not name.startswith("_")]
    assert [name for name in methods if f"`{name}`" not in PAGE] == []
    assert [name for name in OLD_NAMES.values() if f"`{name}`" not in PAGE] == ["train/skipped"]
