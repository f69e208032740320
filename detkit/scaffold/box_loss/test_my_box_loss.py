"""Run with: pytest projects/my_box_loss"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.coders.delta import DeltaCoder
from detkit.config import load_config
from detkit.registry import BOX_LOSSES
from detkit.testing import check_box_loss
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_box_loss.py, and so registers its class


def test_contract() -> None:
    check_box_loss(BOX_LOSSES.get("MyBoxLoss"))  # ContractError says what is broken, and why it matters


def test_a_perfect_box_costs_nothing_and_one_that_is_off_more() -> None:
    loss, coder = BOX_LOSSES.build(CONFIG.losses.box), DeltaCoder()
    anchors, boxes = torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[2.0, 2, 20, 12]])
    perfect = coder.encode(boxes, anchors)
    assert loss(perfect, anchors, boxes, coder).item() < 1e-6
    assert loss(perfect + 0.1, anchors, boxes, coder) < loss(perfect + 0.5, anchors, boxes, coder)


def test_no_positives_cost_nothing() -> None:
    nothing = torch.zeros(0, 4, requires_grad=True)
    cost = BOX_LOSSES.build(CONFIG.losses.box)(nothing, torch.zeros(0, 4), torch.zeros(0, 4), DeltaCoder())
    cost.backward()
    assert cost.item() == 0


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()
