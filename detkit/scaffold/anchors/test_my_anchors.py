"""Run with: pytest projects/my_anchors"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.config import load_config
from detkit.registry import ANCHORS
from detkit.testing import check_anchor_generator
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_anchors.py, and so registers its class


def test_contract() -> None:
    check_anchor_generator(ANCHORS.get("MyAnchors"))  # ContractError says what is broken, and why it matters


def test_anchors_lie_over_their_cells() -> None:
    anchors = ANCHORS.build(CONFIG.anchors, strides=(8, 16))
    fine, coarse = anchors([(3, 4), (2, 2)], (24, 32), torch.device("cpu"))
    assert fine.shape == (3 * 4 * anchors.per_cell[0], 4)
    assert coarse.shape == (2 * 2 * anchors.per_cell[1], 4)
    centres = (fine[:, :2] + fine[:, 2:]) / 2
    torch.testing.assert_close(centres[0], torch.tensor([4.0, 4.0]))  # the middle of the first cell
    torch.testing.assert_close(centres[-1], torch.tensor([28.0, 20.0]))  # and of the last one, x before y


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()
