"""Whether the running statistics of batch norms can follow a training."""

from __future__ import annotations

import logging

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

log = logging.getLogger("detkit")

LEFT = 0.001
"""Share of a batch norm's first statistics above which evaluation suffers: variances of a network are about 0.01."""


def warn_of_fresh_statistics(network: nn.Module, steps: int) -> None:
    """Logs a warning where batch norms start at mean 0 and variance 1 and still hold much of it after `steps` steps.

    After n steps, (1 - momentum)^n of the first values is left. Call it before the training.
    """
    left: dict[str, float] = {}
    for name, norm in network.named_modules():
        if isinstance(norm, _BatchNorm) and norm.momentum is not None and is_fresh(norm):
            share = (1 - norm.momentum) ** steps
            if share > LEFT:
                left[name] = share
    if left:
        name, share = max(left.items(), key=lambda item: item[1])
        log.warning(
            "after %d steps, batch norms still hold %.2g of the variance 1 with which they start (%d, as %s), so "
            "evaluation may find nothing: train longer, set norm_momentum=0.1 of neck and head, or take norm: gn",
            steps, share, len(left), name,
        )  # fmt: skip


def is_fresh(norm: _BatchNorm) -> bool:
    """Whether the statistics are those of a new layer."""
    mean, variance = norm.running_mean, norm.running_var
    return (
        mean is not None and variance is not None
        and bool(torch.equal(mean, torch.zeros_like(mean)) and torch.equal(variance, torch.ones_like(variance)))
    )  # fmt: skip
