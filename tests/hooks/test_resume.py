"""A run with every hook and every local logger that was killed and resumed equals the one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detkit.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from tests.hooks.conftest import Small
from tests.refusals import Refuses

HOOKS: list[dict[str, Any]] = [
    {"type": "Killer"},
    {"type": "EarlyStopping", "patience": 2, "from_step": 6},
    {"type": "BestCheckpoint", "metric": "val/ap50"},
    {"type": "LearningRateMonitor", "every": 2},
    {"type": "Freeze", "parts": ["backbone.layer1"], "until": 4},
    {"type": "Freeze", "parts": ["backbone", "neck"], "until": 6},
    {"type": "MultiScale", "every": 2, "factors": [0.7, 1.0, 1.3]},
    {"type": "VisualizePredictions", "images": 1, "choice": "random", "min_score": 0.0},
]
LOGGERS = [{"type": name} for name in ("TensorBoard", "CSV", "JSONL", "StatusFile")]
KNOWN = r"(?<=Known: ).*(?= If your own file)"
"""Names that depend on what other tests have registered."""
CLOCKS = ("time", "memory", "val/seconds", "train/images_per_second")


def kill(small: Small, name: str, at: int, *more: str, **sections: Any) -> Path:
    """Runs until the process kills itself after a step."""
    words = [sys.executable, "-m", "detkit", "train", str(small.config(**sections)), "--output", str(small.root / name)]
    environ = os.environ | {"KILL_AT": str(at), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*words, *more], env=environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return small.root / name


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor in nested dicts and lists by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {k: t for key, item in items for k, t in tensors(item, f"{name}.{key}").items()}


def assert_same_state(want: Checkpoint, have: Checkpoint) -> None:
    assert want.step == have.step
    assert want.hooks == have.hooks
    for name in ("model", "ema", "optimizer"):
        first, second = tensors(getattr(want, name)), tensors(getattr(have, name))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name


def lines(path: Path) -> list[Any]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in rows]


def test_a_killed_run_with_all_hooks_resumes_to_the_same_bits(small: Small) -> None:
    sections = {"hooks": HOOKS, "loggers": LOGGERS}
    assert small.run("whole", **sections) == 0
    whole, killed = small.root / "whole", kill(small, "killed", 7, **sections)
    assert {p.name for p in (killed / "checkpoints").iterdir()} >= {"step_00000004.pt"}
    assert small.run("killed", "--resume", **sections) == 0
    want, have = (load_checkpoint(run, prefer="newest") for run in (whole, killed))
    assert_same_state(want, have)
    assert have.hooks["EarlyStopping"]["last_step"] >= 6
    for name in ("metrics.jsonl", "scalars.jsonl"):
        assert lines(whole / name) == lines(killed / name), name
    table = [[row.split(",")[0] for row in (run / "scalars.csv").read_text().splitlines()] for run in (whole, killed)]
    assert table[0] == table[1]
    for name in ("best_ap50.pt", "best.pt"):
        assert_same_state(*(read_checkpoint(run / "checkpoints" / name) for run in (whole, killed)))
    pictures = [sorted(p.name for p in (run / "predictions").iterdir()) for run in (whole, killed)]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == len({entry["step"] for entry in lines(whole / "metrics.jsonl") if "val/ap" in entry})
    assert json.loads((killed / "status.json").read_text())["state"] == "finished"


WARM_UPS: dict[str, Any] = {
    "schedule": {"type": "FlatCosine", "warmup_iterations": 2},
    "optimizer": {"type": "AdamW", "lr": 0.01, "layer_decay": 0.7},
    "train": {"ema_decay": 0.99, "ema_warmup": 4, "iterations": 12},
}
MIXED = [
    {"type": "Mosaic", "height": 64, "width": 64},
    {"type": "ScaleJitter", "height": 128, "width": 128, "scale_range": [0.5, 1.5]},
    {"type": "RandomCrop", "height": 64, "width": 64, "min_visible": 0.1},
    {"type": "MixUp", "single": True},
    {"type": "CopyPaste"},
]


def mixed(small: Small, final: int) -> dict[str, Any]:
    """Sections of a training that mixes images but in its last steps, with everything that warms up."""
    data = yaml.safe_load(small.config().read_text())["data"]
    data["train"] |= {"transforms": MIXED, "final": {"iterations": final}}
    return WARM_UPS | {"data": data, "hooks": [{"type": "Killer"}]}


@pytest.mark.parametrize(
    ("final", "killed_at"),
    [(2, 7), pytest.param(7, 7, marks=pytest.mark.slow), pytest.param(9, 7, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_killed_run_with_mixed_images_resumes_to_the_same_bits(small: Small, final: int, killed_at: int) -> None:
    """It is resumed from step 4: before the last steps begin, between that and the kill, and in them."""
    sections = mixed(small, final)
    assert small.run("whole", **sections) == 0
    whole, killed = small.root / "whole", kill(small, "killed", killed_at, **sections)
    assert small.run("killed", "--resume", **sections) == 0
    assert_same_state(*(load_checkpoint(run, prefer="newest") for run in (whole, killed)))
    assert lines(whole / "metrics.jsonl") == lines(killed / "metrics.jsonl")


def test_done_steps_keep_their_transforms(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    constant = mixed(small, 2) | {"schedule": {"type": "Constant"}}
    short = constant | {"train": WARM_UPS["train"] | {"iterations": 4}}
    assert small.run("run", **short) == 0
    assert small.run("run", "--resume", **constant) == 2
    assert "step 3 would have had other transforms, by data.train.final" in capsys.readouterr().err
    constant["data"]["train"]["final"]["iterations"] = 3
    assert small.run("run", "--resume", **constant) == 2
    assert "data.train.final.iterations: 2.0 in the run, 3.0 now" in capsys.readouterr().err


@pytest.mark.slow
def test_watching_hooks_and_loggers_change_no_bit_and_may_come_and_go(small: Small) -> None:
    """Also without hooks: the same weights as before there were hooks are held by tests/test_old_runs.py."""
    assert small.run("bare") == 0
    watching = [{"type": "VisualizePredictions", "images": 1}, {"type": "LearningRateMonitor"}]
    killed = kill(small, "watched", 7, hooks=[{"type": "Killer"}, *watching], loggers=LOGGERS)
    assert small.run("watched", "--resume", hooks=[{"type": "BestCheckpoint"}], loggers=[{"type": "CSV"}]) == 0
    want, have = (load_checkpoint(small.root / name, prefer="newest") for name in ("bare", "watched"))
    want.hooks = have.hooks
    assert_same_state(want, have)
    assert (killed / "checkpoints/best_ap50.pt").exists()


@pytest.mark.slow
def test_a_hook_that_changes_the_training_must_stay_at_a_resume(
    small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    scale = {"type": "MultiScale", "every": 2}
    assert small.run("run", hooks=[{"type": "LearningRateMonitor"}, scale], train={"iterations": 5}) == 0
    before = load_checkpoint(small.root / "run", prefer="newest").hooks
    assert before == {}, "a hook without a state leaves none"
    assert small.run("run", "--resume", hooks=[scale | {"every": 3}], train={"iterations": 5}) == 2
    assert "hooks.0.every: 2 in the run, 3 now" in capsys.readouterr().err
    assert small.run("run", "--resume", hooks=[scale], train={"iterations": 5}) == 0


@pytest.mark.slow
def test_a_checkpoint_without_states_of_hooks_is_resumed(small: Small) -> None:
    """As those of an older detkit are."""
    kill(small, "old", 6, hooks=[{"type": "Killer"}])
    content = torch.load(small.root / "old/checkpoints/step_00000004.pt", weights_only=True)
    assert content["format"] == 2
    assert "hooks" not in content
    assert small.run("old", "--resume", hooks=[{"type": "EarlyStopping"}]) == 0
    content = torch.load(small.root / "old/checkpoints/step_00000012.pt", weights_only=True)
    assert content["format"] == 3
    assert content["hooks"]["EarlyStopping"]["last_step"] == 12


def test_a_run_that_was_stopped_early_stays_so_when_it_is_resumed(small: Small) -> None:
    stopping = {"hooks": [{"type": "EarlyStopping", "patience": 1, "min_delta": 2.0}]}  # no AP rises by 2
    assert small.run("run", **stopping) == 0
    assert load_checkpoint(small.root / "run", prefer="newest").step == 6
    text = (small.root / "run/log.txt").read_text()
    assert "EarlyStopping: val/ap has not become better than 0" in text
    assert "stopped after step 6/12" in text
    assert json.loads((small.root / "run/result.json").read_text())["step"] == 6
    assert small.run("run", "--resume", **stopping) == 0
    assert load_checkpoint(small.root / "run", prefer="newest").step == 6


def test_hooks_are_refused_with_the_nearest_name(refuses: Refuses, load: Any) -> None:
    with refuses(ValueError, hide=KNOWN):
        load({"type": "EarlyStoping"}, {"type": "EarlyStopping", "metrik": "val/ap"})
    with refuses(ValueError, hide=KNOWN):
        load({"type": "EarlyStopping", "metric": "val/ap05"})
    with refuses(ValueError, hide=KNOWN):
        load(loggers=[{"type": "Tensorboard"}])
    with refuses(ValueError, hide=KNOWN):
        load({"type": "Freeze", "parts": []})
