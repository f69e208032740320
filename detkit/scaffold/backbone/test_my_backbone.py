"""Run with: pytest projects/my_backbone"""

from __future__ import annotations

from pathlib import Path

import torch

from detkit.config import load_config
from detkit.registry import BACKBONES
from detkit.testing import check_backbone
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")  # imports my_backbone.py, and so registers its class


def test_contract() -> None:
    check_backbone(BACKBONES.get("MyBackbone"))  # ContractError says what is broken, and why it matters


def test_levels_are_as_declared() -> None:
    backbone = BACKBONES.build(CONFIG.backbone).eval()
    height, width = 70, 100  # no multiples of a stride: sizes are rounded up
    features = backbone(torch.randn(2, 3, height, width))
    assert list(features) == list(backbone.out_shapes)
    for name, shape in backbone.out_shapes.items():
        assert features[name].shape == (2, shape.channels, -(-height // shape.stride), -(-width // shape.stride))


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = ["train.iterations=2", "schedule.warmup_iterations=0", "data.loader.batch_size=2"]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert (tmp_path / "run/result.json").exists()
