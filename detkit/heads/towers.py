"""Towers of convolutions that all levels share."""

from __future__ import annotations

from torch import nn

from detkit.layers.convs import with_norm
from detkit.layers.deformable import DeformableConv2d
from detkit.layers.norms import NormName


def conv_tower(
    in_channels: int, width: int, num_convs: int, norm: NormName | None, *, with_bias: bool = False, deformable: int = 0
) -> nn.Sequential:
    """3x3 convolutions, each with its norm and ReLU; without a norm, or `with_bias`, they have biases.

    The first `deformable` of them are deformable.
    """
    layers: list[nn.Module] = []
    for i in range(num_convs):
        kind = DeformableConv2d if i < deformable else nn.Conv2d
        conv = kind(in_channels if i == 0 else width, width, 3, padding=1, bias=with_bias or norm is None)
        layers += with_norm(conv, norm, nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def check_levels_alike(in_channels: tuple[int, ...], anchors_per_cell: tuple[int, ...]) -> None:
    """Raises ValueError unless all levels have the same channels and anchors per cell."""
    for what, values in (("channels", in_channels), ("anchors per cell", anchors_per_cell)):
        if len(set(values)) != 1:
            raise ValueError(
                f"all levels share the towers, but their {what} differ: {values}. Use PerLevelHead, or a neck "
                "such as FPN that gives all levels the same channels"
            )


def check_one_anchor(anchors_per_cell: tuple[int, ...], head: str) -> None:
    """Raises ValueError unless every cell has one anchor."""
    if set(anchors_per_cell) != {1}:
        raise ValueError(
            f"{head} predicts one box a cell, but the anchors per cell are {anchors_per_cell}: set "
            "scales_per_octave: 1 and one aspect ratio in `anchors`"
        )
