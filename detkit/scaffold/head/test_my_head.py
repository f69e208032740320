"""Run with: pytest projects/my_head"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.config import load_config
from detkit.registry import HEADS
from detkit.testing import check_head
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_head.py, and so registers its class


def test_contract() -> None:
    check_head(HEADS.get("MyHead"))  # ContractError says what is broken, and why it matters


def test_an_output_for_every_anchor_and_the_bias_that_the_loss_asks_for() -> None:
    bias = torch.tensor([-2.0, -3.0])
    head = HEADS.build(CONFIG.head, in_channels=(16, 16), anchors_per_cell=(3, 3), num_columns=2, class_bias=bias)
    logits, deltas = head([torch.zeros(2, 16, 4, 5), torch.zeros(2, 16, 2, 3)])
    assert [x.shape for x in logits] == [(2, 4 * 5 * 3, 2), (2, 2 * 3 * 3, 2)]
    assert [x.shape for x in deltas] == [(2, 4 * 5 * 3, 4), (2, 2 * 3 * 3, 4)]
    torch.testing.assert_close(logits[0][0, 0], bias)


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()
