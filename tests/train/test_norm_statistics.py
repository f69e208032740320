"""A warning where a training is too short for the statistics of its batch norms."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from detkit.train.norm_statistics import warn_of_fresh_statistics


@pytest.mark.parametrize(
    ("momentum", "steps", "warned"), [(0.01, 400, True), (0.01, 800, False), (0.1, 60, True), (0.1, 70, False)]
)
def test_warns_where_the_first_variance_is_left(
    momentum: float, steps: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum))
    with caplog.at_level(logging.WARNING, "detkit"):
        warn_of_fresh_statistics(network, steps)
    assert bool(caplog.records) == warned
    if momentum == 0.01 and warned:
        assert caplog.messages == [
            "after 400 steps, batch norms still hold 0.018 of the variance 1 with which they start (1, as 1), so "
            "evaluation may find nothing: train longer, set norm_momentum=0.1 of neck and head, or take norm: gn"
        ]


def test_statistics_of_a_checkpoint_and_other_norms_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    trained = nn.BatchNorm2d(4, momentum=0.01)
    trained(torch.randn(2, 4, 3, 3))
    network = nn.Sequential(trained, nn.GroupNorm(1, 4), nn.BatchNorm2d(4, momentum=None))
    with caplog.at_level(logging.WARNING, "detkit"):
        warn_of_fresh_statistics(network, 1)
    assert not caplog.records
