"""A head: for every anchor of every level, class logits and box deltas."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detkit.heads.base import Head, per_anchor
from detkit.layers.norms import NormName, norm_layer
from detkit.registry import HEADS, NonNegativeInt


@HEADS.register()
class MyHead(Head):
    """One tower of 3x3 convolutions for both classes and boxes, shared by all levels.

    Args:
        in_channels: of each level of the neck.
        anchors_per_cell: of each level.
        num_columns: class logits per anchor, by the loss.
        class_bias: of the class logits at the start, by the loss.
        num_convs: convolutions of the tower.
        norm: normalisation layers of the tower.
    """

    # detkit hands in the first four; the others are the keys of the config. Their types say the bounds.
    def __init__(
        self,
        *,
        in_channels: tuple[int, ...],
        anchors_per_cell: tuple[int, ...],
        num_columns: int,
        class_bias: Tensor,
        num_convs: NonNegativeInt = 2,
        norm: NormName = "gn",
    ) -> None:
        super().__init__()
        # What no type can say is checked here: a ValueError is shown with the config's file and line.
        if len(set(in_channels)) != 1 or len(set(anchors_per_cell)) != 1:
            raise ValueError(
                f"one tower for all levels, but channels {in_channels} or anchors {anchors_per_cell} differ"
            )
        channels, anchors = in_channels[0], anchors_per_cell[0]
        self.num_columns = num_columns

        # Change from here: your own layers.
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm_layer(norm)(channels), nn.ReLU()]
        self.tower = nn.Sequential(*layers)

        # Small outputs, and the initial bias of the loss: otherwise the first steps only learn the background. The
        # classes come last, so that all other weights start alike with any loss.
        self.box_out = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        _small(self.box_out)
        self.class_out = nn.Conv2d(channels, anchors * num_columns, 3, padding=1)
        _small(self.class_out)
        self.class_out.bias.data.copy_(class_bias.repeat(anchors))  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level (B, channels, H, W) -> per level logits (B, H * W * a, C) and deltas (B, H * W * a, 4)."""
        towers = [self.tower(x) for x in features]
        logits = [per_anchor(self.class_out(x), self.num_columns) for x in towers]
        deltas = [per_anchor(self.box_out(x), 4) for x in towers]
        return logits, deltas


def _small(layer: nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
