"""Run with: pytest projects/my_hook"""

from __future__ import annotations

from pathlib import Path

from detkit.config import load_config
from detkit.registry import HOOKS
from detkit.runs.metrics import read_metrics
from detkit.testing import check_hook
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_hook.py, and so registers its class


def test_contract() -> None:
    check_hook(HOOKS.get("MyHook"))  # ContractError says what is broken, and why it matters


def test_a_training_with_the_hook(tmp_path: Path) -> None:
    short = ["train.iterations=3", "train.eval_every=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2", "train.log_every=1"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    steps, _ = read_metrics(tmp_path / "run/metrics.jsonl")
    losses = [step["train/loss"] for step in steps]
    # The evaluation of a step comes before `after_step` of the same step.
    assert [step.get("train/highest_loss") for step in steps] == [None, losses[0], max(losses[1:])]
