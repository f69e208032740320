from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detkit.train.ema import Ema


def test_follows_the_formula() -> None:
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    ema = Ema(net, decay=0.15)
    net.weight.data.fill_(2.0)
    ema.update(net)  # decay (1 + 0) / (10 + 0) = 0.1
    assert ema.module.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    ema.update(net)  # decay min(0.15, 2 / 11) = 0.15
    assert ema.module.weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 2)


def test_warms_up_exponentially() -> None:
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    ema = Ema(net, decay=0.9, warmup=2.0)
    net.weight.data.fill_(2.0)
    ema.update(net)
    first = 0.9 * (1 - math.exp(-1 / 2))
    assert ema.module.weight.item() == pytest.approx(first * 1 + (1 - first) * 2)
    assert ema.next_decay() == pytest.approx(0.9 * (1 - math.exp(-2 / 2)))
    resumed = Ema(net, decay=0.9, updates=1, warmup=2.0)
    assert resumed.next_decay() == ema.next_decay()
    ema.updates = 10**6
    assert ema.next_decay() == 0.9


def test_buffers_are_averaged_and_whole_numbers_copied() -> None:
    net = nn.BatchNorm1d(2)
    ema = Ema(net, decay=0.5)
    for _ in range(3):
        net(torch.randn(8, 2) + 5)
        ema.update(net)
    averaged = ema.module
    assert isinstance(averaged, nn.BatchNorm1d)
    assert averaged.num_batches_tracked == net.num_batches_tracked == 3
    assert averaged.running_mean is not None
    assert net.running_mean is not None
    assert 0 < averaged.running_mean[0] < net.running_mean[0]


def test_the_average_needs_no_gradient_and_stays_in_eval_mode() -> None:
    ema = Ema(nn.BatchNorm1d(2), decay=0.5)
    assert not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())
