"""How sure a head is of its edges, as a guide of the class score (GFLv2, 2011.12885, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TOP, HIDDEN = 4, 64
"""Probabilities of each edge's distribution that are looked at, and width of the layer between (section 4.1)."""


class DistributionGuidance(nn.Module):
    """The probability that a box is good, from the shape of its four distributions: sharp ones are sure.

    The four highest probabilities of each edge and their mean go through two linear layers.

    box_columns: those of a coder of distributions, 4 (bins + 1). Raises ValueError for other coders.
    """

    def __init__(self, box_columns: int) -> None:
        super().__init__()
        self.values = box_columns // 4
        if box_columns % 4 or self.values < TOP:
            raise ValueError(
                f"guided: true needs a coder of distributions with at least {TOP} values an edge, such as "
                f"DistributionCoder; this one has {box_columns} columns"
            )
        self.layers = nn.Sequential(nn.Linear(4 * (TOP + 1), HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, 1))
        for layer in (self.layers[0], self.layers[2]):
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, columns: Tensor) -> Tensor:
        """Box columns (B, N, 4 (bins + 1)) -> logits (B, N, 1)."""
        shares = columns.float().reshape(*columns.shape[:-1], 4, self.values).softmax(dim=-1)
        top = shares.topk(TOP, dim=-1).values
        sharpness = torch.cat((top, top.mean(dim=-1, keepdim=True)), dim=-1)
        logit: Tensor = self.layers(sharpness.flatten(-2))
        return logit
