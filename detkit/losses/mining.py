"""Hard negative mining (1512.02325, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.structures import BACKGROUND


def hard_negatives(costs: Tensor, labels: Tensor, ratio: float, floor: int) -> Tensor:
    """(B, A) bool, the hardest background anchors of each image.

    costs: (B, A), the loss of each anchor as background. labels: (B, A) (class, BACKGROUND or IGNORED). Of an
    image with P positives, `ratio * P` (rounded up) are chosen, at least `floor` and at most all of its background
    anchors. Of equal costs the earlier anchor goes first. No gradient goes through the choice, and nothing is
    copied to the host.
    """
    if costs.shape != labels.shape:
        raise ValueError(f"costs {tuple(costs.shape)} do not fit labels {tuple(labels.shape)}")
    background = labels == BACKGROUND
    wanted = ((labels >= 0).sum(dim=1, keepdim=True) * ratio).clamp(min=floor)
    order = costs.detach().masked_fill(~background, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(labels.shape[1], device=labels.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, ranks)
    return background & (rank < wanted)
