"""Run with: pytest projects/my_neck"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.config import load_config
from detkit.registry import NECKS
from detkit.structures import FeatureShape
from detkit.testing import check_neck
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_neck.py, and so registers its class


def test_contract() -> None:
    check_neck(NECKS.get("MyNeck"))  # ContractError says what is broken, and why it matters


def test_levels_are_as_declared() -> None:
    neck = NECKS.build(CONFIG.neck, in_shapes={"c3": FeatureShape(8, 8), "c4": FeatureShape(16, 16)}).eval()
    height, width = 70, 100  # no multiples of a stride: sizes are rounded up
    levels = neck({"c3": torch.randn(2, 8, 9, 13), "c4": torch.randn(2, 16, 5, 7)})
    assert list(levels) == list(neck.out_shapes)
    for name, shape in neck.out_shapes.items():
        assert levels[name].shape == (2, shape.channels, -(-height // shape.stride), -(-width // shape.stride))


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()
