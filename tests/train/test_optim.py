from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detkit.backbones.resnet import ResNet
from detkit.train.optim import SGD, AdamW
from tests.refusals import Refuses


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)


def setting_of(optimizer: torch.optim.Optimizer, parameter: Any) -> tuple[float, float] | None:
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return group["initial_lr"], group["weight_decay"]
    return None


def test_groups_by_kind_and_place() -> None:
    net = Net()
    part = SGD(lr=1.0, weight_decay=0.1, norm_weight_decay=0.0, bias_weight_decay=0.3, bias_lr_factor=2.0,
               backbone_lr_factor=0.5)  # fmt: skip
    optimizer = part.build(net)
    conv, norm = net.backbone
    assert setting_of(optimizer, net.head.weight) == (1.0, 0.1)
    assert setting_of(optimizer, net.head.bias) == (2.0, 0.3)
    assert setting_of(optimizer, conv.weight) == (0.5, 0.1)
    assert setting_of(optimizer, conv.bias) == (1.0, 0.3)
    assert setting_of(optimizer, norm.weight) == (0.5, 0.0)
    assert setting_of(optimizer, norm.bias) == (0.5, 0.0)
    assert setting_of(optimizer, net.frozen.weight) is None


class Layered(nn.Module):
    """A detector of a ResNet-18 and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(depth=18, norm="bn", freeze_at=1)
        self.head = nn.Conv2d(4, 2, 1)


def test_layers_learn_more_slowly_towards_the_image() -> None:
    net = Layered()
    optimizer = SGD(lr=1.0, weight_decay=0.1, bias_lr_factor=2.0, backbone_lr_factor=0.5, layer_decay=0.8).build(net)
    stem, last = net.backbone.stem.conv1.weight, net.backbone.layer4[1].conv2.weight
    assert setting_of(optimizer, net.head.weight) == (1.0, 0.1)
    assert setting_of(optimizer, net.head.bias) == (2.0, 0.1)
    assert setting_of(optimizer, last) == (0.5 * 0.8, 0.1)
    # Nine layers: the stem, which is frozen, and two blocks in each of four groups.
    rate, decay = setting_of(optimizer, net.backbone.layer1[0].bn1.weight) or (0.0, 0.0)
    assert (rate, decay) == (pytest.approx(0.5 * 0.8**8), 0.0)
    assert setting_of(optimizer, stem) is None
    counted = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(counted) == len({id(p) for p in counted}) == sum(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("make", [SGD, AdamW])
def test_no_layer_decay_gives_the_groups_that_there_were(make: Any) -> None:
    net = Layered()
    plain, layered = (make(lr=0.1, **more).build(net).param_groups for more in ({}, {"layer_decay": 1.0}))
    assert [{**g, "params": [id(p) for p in g["params"]]} for g in plain] == [
        {**g, "params": [id(p) for p in g["params"]]} for g in layered
    ]
    assert len(plain) == len({(g["lr"], g["weight_decay"]) for g in plain}) == 2


def test_a_backbone_without_layers_has_no_layer_decay(refuses: Refuses) -> None:
    with refuses(ValueError):
        SGD(lr=0.1, layer_decay=0.9).build(Net())
    net = Layered()
    net.backbone.register_parameter("extra", nn.Parameter(torch.zeros(1)))
    SGD(lr=0.1, layer_decay=0.9).build(net)  # a parameter of the module itself is of its first layer
    net.backbone.layer_names = lambda: [["stem"], ["layer1", "layer2"]]  # type: ignore[method-assign]
    with refuses(ValueError):
        SGD(lr=0.1, layer_decay=0.9).build(net)


def test_every_parameter_once_even_if_shared() -> None:
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    net[1].weight = net[0].weight
    optimizer = AdamW(lr=0.1).build(net)
    ids = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(ids) == sorted({id(p) for p in net.parameters()})


def test_null_decay_means_the_same() -> None:
    net = Net()
    optimizer = AdamW(lr=1.0, weight_decay=0.2, norm_weight_decay=None, bias_weight_decay=None).build(net)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.2}


def test_refuses_nonsense(refuses: Refuses) -> None:
    with refuses(ValueError):
        SGD(lr=0.1, momentum=1.0)
    with refuses(ValueError):
        AdamW(lr=-0.1)
    with refuses(ValueError):
        SGD(lr=0.1).build(nn.Module())
