"""MobileNetV3 with SSDlite's two levels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_large

from detkit.backbones.mobilenet import MobileNetV3
from tests.refusals import Refuses


@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize("reduced", [True, False])
def test_declared_shapes_are_real_at_odd_sizes(reduced: bool, size: int) -> None:
    net = MobileNetV3(reduced_tail=reduced).eval()
    features = net(torch.randn(1, 3, size, size))
    assert list(features) == list(net.out_shapes) == ["c4", "c5"]
    assert net.out_shapes["c5"].channels == (480 if reduced else 960)
    for name, shape in net.out_shapes.items():
        side = -(-size // shape.stride)
        assert features[name].shape == (1, shape.channels, side, side)


def test_loads_torchvision_weights_and_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = mobilenet_v3_large().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    net = MobileNetV3(reduced_tail=False, weights=str(tmp_path / "m.pth")).eval()
    net.load_pretrained()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x)["c5"], theirs.features(x))
        expanded = theirs.features[13].block[0](theirs.features[:13](x))
        torch.testing.assert_close(net(x)["c4"], expanded)


def test_all_learns_and_other_numbers_of_image_channels() -> None:
    net = MobileNetV3(in_channels=1)
    sum(f.square().sum() for f in net(torch.randn(2, 1, 64, 64)).values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_weights_that_do_not_fit_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        MobileNetV3(weights="IMAGENET1K_V2")
    torch.save({"features.0.0.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "x.pth")
    with refuses(ValueError):
        MobileNetV3(reduced_tail=False, weights=str(tmp_path / "x.pth")).load_pretrained()
