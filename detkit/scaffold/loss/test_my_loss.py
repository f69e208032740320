"""Run with: pytest projects/my_loss"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.config import load_config
from detkit.registry import CLASS_LOSSES
from detkit.structures import BACKGROUND, IGNORED
from detkit.testing import check_class_loss
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_loss.py, and so registers its class


def test_contract() -> None:
    check_class_loss(CLASS_LOSSES.get("MyLoss"))  # ContractError says what is broken, and why it matters


def test_what_is_right_costs_less_than_what_is_wrong_and_what_is_ignored_nothing() -> None:
    loss = CLASS_LOSSES.build(CONFIG.losses.classification)
    logits = torch.full((1, 1, loss.num_columns(3)), -4.0)
    logits[..., 1] = 4.0
    right, wrong, background, ignored = (loss(logits, torch.tensor([[k]])).item() for k in (1, 0, BACKGROUND, IGNORED))
    assert right < 0.01 < background < wrong
    assert ignored == 0


def test_every_anchor_starts_as_background() -> None:
    loss = CLASS_LOSSES.build(CONFIG.losses.classification)
    assert loss.scores(loss.initial_bias(3)).sum() < 0.1


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()
