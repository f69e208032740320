"""Run with: pytest projects/repvgg"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detkit.config import Config, load_config
from detkit.detectors.build import build_detector
from detkit.registry import BACKBONES, NECKS
from detkit.structures import FeatureShape
from detkit.testing import check_backbone, check_neck
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")
RESNET = load_config(FOLDER / "../../configs/quickstart/shapes.yaml")
SMALL = {"type": "RepVGG", "widths": [4, 8, 8, 16, 16], "depths": [1, 2, 2, 1]}


def test_contracts() -> None:
    check_backbone(lambda: BACKBONES.build(SMALL))
    check_neck(NECKS.get("LightPAN"))


def trained(**settings: Any) -> Any:
    """A small RepVGG whose norms have seen something, in evaluation mode."""
    torch.manual_seed(0)
    backbone = BACKBONES.build({**SMALL, **settings})
    for _ in range(3):
        backbone(torch.randn(4, 3, 32, 32) * 3 + 1)
    return backbone.eval()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 101), (33, 1)])
def test_levels_are_as_declared_at_any_size(height: int, width: int) -> None:
    backbone = trained()
    neck = NECKS.build({"type": "LightPAN", "channels": 16, "extra_levels": 2}, in_shapes=backbone.out_shapes).eval()
    assert list(neck.out_shapes) == ["p3", "p4", "p5", "p6", "p7"]
    features = backbone(torch.randn(2, 3, height, width))
    for part, maps in ((backbone, features), (neck, neck(features))):
        assert list(maps) == list(part.out_shapes)
        for name, shape in part.out_shapes.items():
            assert maps[name].shape == (2, shape.channels, -(-height // shape.stride), -(-width // shape.stride)), name


def branches_and_fused(backbone: Any) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, 3, 37, 50)
    branches = backbone(images)["c5"].detach()
    with torch.no_grad():
        return branches, backbone(images)["c5"]


def test_the_one_convolution_is_the_three_branches() -> None:
    branches, fused = branches_and_fused(trained())
    assert branches.abs().max() > 0.1
    torch.testing.assert_close(fused, branches, rtol=1e-4, atol=1e-5)


def test_a_changed_weight_is_noticed_however_it_changed() -> None:
    backbone = trained()
    before = branches_and_fused(backbone)[1]
    block = backbone.stages["c3"][1]

    def halve() -> None:
        with torch.no_grad():
            block.conv3.weight.mul_(0.5)

    def load() -> None:
        backbone.load_state_dict({key: value * 0.9 for key, value in backbone.state_dict().items()})

    def learn() -> None:
        backbone.train()
        backbone(torch.randn(4, 3, 32, 32))
        backbone.eval()

    for change in (halve, load, learn):
        change()
        branches, fused = branches_and_fused(backbone)
        torch.testing.assert_close(fused, branches, rtol=1e-4, atol=1e-5)
        assert not torch.equal(fused, before)
    twin = copy.deepcopy(backbone)  # as the averaged weights are made
    with torch.no_grad():
        twin.stem.norm3.bias.add_(1.0)
    branches, fused = branches_and_fused(twin)
    torch.testing.assert_close(fused, branches, rtol=1e-4, atol=1e-5)


def test_the_kept_convolution_is_used_again() -> None:
    block = trained().stem
    with torch.inference_mode():
        first, second = block.fused()[0], block.fused()[0]
    assert first is second


def test_what_is_not_put_out_is_not_built() -> None:
    backbone = trained(out_features=["c3"])
    assert list(backbone.stages) == ["c2", "c3"]
    assert backbone.out_shapes == {"c3": FeatureShape(8, 8)}
    with pytest.raises(ValueError, match=r"out_features: \['c9'\]; with these depths there are c2, c3"):
        BACKBONES.build({"type": "RepVGG", "widths": [4, 8, 8], "depths": [1, 1], "out_features": ["c9"]})
    with pytest.raises(ValueError, match=r"widths: \[4, 8\] must be one more than depths \[1, 1\]"):
        BACKBONES.build({"type": "RepVGG", "widths": [4, 8], "depths": [1, 1]})


def test_no_more_compute_than_resnet_18() -> None:
    def flops(config: Config, training: bool) -> int:
        detector = build_detector(config, num_classes=7).train(training)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            detector(torch.zeros(2, 3, 128, 128, dtype=torch.uint8))
        total: int = counter.get_total_flops()
        return total

    for training in (True, False):
        assert flops(CONFIG, training) <= flops(RESNET, training)


def test_the_two_configs_differ_in_backbone_and_neck_alone() -> None:
    mine, theirs = dict(CONFIG.leaves()), dict(RESNET.leaves())
    differ = {key.partition(".")[0] for key in {*mine, *theirs} if mine.get(key) != theirs.get(key)}
    assert differ == {"imports", "backbone", "neck"}


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = [
        "train.iterations=2",
        "schedule.warmup_iterations=0",
        "data.loader.batch_size=2",
        "data.loader.num_workers=0",
    ]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert json.loads((tmp_path / "run/result.json").read_text())
