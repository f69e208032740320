"""VGG with SSD's two levels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.backbones.vgg import VGG, subsampled_classifier
from tests.refusals import Refuses

SMALL: dict[str, Any] = {"width": 1 / 16}


@pytest.mark.parametrize("size", [64, 97, 300])
@pytest.mark.parametrize("depth", [11, 16])
def test_declared_shapes_are_real_at_odd_sizes(depth: Any, size: int) -> None:
    net = VGG(depth=depth, **SMALL)
    features = net(torch.randn(1, 3, size, size))
    assert list(features) == list(net.out_shapes) == ["c3", "c4"]
    for name, shape in net.out_shapes.items():
        side = -(-size // shape.stride)
        assert features[name].shape == (1, shape.channels, side, side)


def test_c3_has_the_learnt_length_at_every_cell() -> None:
    net = VGG(**SMALL)
    c3 = net(torch.rand(1, 3, 64, 64) * 255)["c3"]
    torch.testing.assert_close(c3.norm(dim=1), torch.full((1, 8, 8), 20.0))
    assert net.scale is not None
    assert net.scale.requires_grad
    plain = VGG(**SMALL, l2_norm=None)
    assert plain.scale is None
    assert plain(torch.rand(1, 3, 64, 64) * 255)["c3"].norm(dim=1).std() > 0


@pytest.mark.parametrize("bn", [False, True])
def test_loads_torchvision_weights_and_computes_the_same(bn: bool, tmp_path: Path) -> None:
    from torchvision.models.vgg import cfgs, make_layers  # the whole model has 130 M weights behind them

    torch.manual_seed(0)
    theirs = make_layers(cfgs["A"], batch_norm=bn).eval()
    torch.save({f"features.{k}": v for k, v in theirs.state_dict().items()}, tmp_path / "vgg.pth")
    net = VGG(depth=11, norm="bn" if bn else None, l2_norm=None, weights=str(tmp_path / "vgg.pth")).eval()
    net.load_pretrained()
    x = torch.randn(1, 3, 64, 64)
    fourth = [i for i, m in enumerate(theirs) if isinstance(m, torch.nn.MaxPool2d)][3]
    with torch.no_grad():
        torch.testing.assert_close(net(x)["c3"], theirs[:fourth](x), rtol=1e-4, atol=1e-5)


def test_the_classifier_becomes_two_convolutions() -> None:
    state = {
        "classifier.0.weight": torch.randn(4096, 8 * 49),
        "classifier.0.bias": torch.randn(4096),
        "classifier.3.weight": torch.randn(4096, 4096),
        "classifier.3.bias": torch.randn(4096),
    }
    thin = subsampled_classifier(state)
    assert {k: tuple(v.shape) for k, v in thin.items()} == {
        "top.0.weight": (1024, 8, 3, 3), "top.0.bias": (1024,),
        "top.2.weight": (1024, 1024, 1, 1), "top.2.bias": (1024,),
    }  # fmt: skip
    # Unit 8, channel 5, row 3 and column 6 of the 7 x 7 cells.
    assert thin["top.0.weight"][2, 5, 1, 2] == state["classifier.0.weight"][8, 5 * 49 + 3 * 7 + 6]
    assert thin["top.2.weight"][3, 1, 0, 0] == state["classifier.3.weight"][12, 4]
    state["classifier.3.bias"][0] = float("nan")
    assert subsampled_classifier(state) == {}
    assert subsampled_classifier({}) == {}


def test_frozen_groups_have_no_gradient_and_keep_their_statistics() -> None:
    net = VGG(**SMALL, norm="bn", freeze_at=2).train()
    before = net.features[1].running_mean.clone()
    sum(f.sum() for f in net(torch.randn(2, 3, 64, 64)).values()).backward()
    frozen = [n for n, p in net.named_parameters() if p.grad is None]
    # conv1_1 to conv2_2 with their norms, 0 to 13 with the ReLUs and one pooling between.
    assert frozen == [n for n, _ in net.named_parameters() if n.startswith("features.") and int(n.split(".")[1]) < 13]
    assert len(frozen) == 16
    assert torch.equal(before, net.features[1].running_mean)


def test_all_learns_by_default() -> None:
    net = VGG(**SMALL)
    sum(f.square().sum() for f in net(torch.randn(2, 3, 64, 64)).values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_other_numbers_of_image_channels() -> None:
    assert VGG(**SMALL, in_channels=1)(torch.zeros(1, 1, 64, 64))["c4"].shape[-1] == 4


def test_wrong_weights_and_values_are_named(refuses: Refuses, tmp_path: Path, caplog: Any) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "x.pth")
    with refuses(ValueError):
        VGG(weights=str(tmp_path / "x.pth")).load_pretrained()
    for bad in ({"freeze_at": 6}, {"width": 0.001}, {"l2_norm": 0.0}):
        with refuses(ValueError):
            VGG(**bad)
    with caplog.at_level(logging.WARNING, "detkit"):
        VGG(**SMALL, freeze_at=1).load_pretrained()
    assert "random weights" in caplog.text
