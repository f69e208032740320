from __future__ import annotations

from typing import Any

import torch
from torch import nn

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
