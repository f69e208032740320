"""The contract of an assigner."""

from __future__ import annotations

from torch import Tensor, nn

from detkit.coders.base import BoxCoder
from detkit.structures import Assignment, Targets


class Assigner(nn.Module):
    """Decides, for every anchor of an image, which object it is to predict."""

    def forward(
        self,
        anchors: Tensor,
        level_sizes: tuple[int, ...],
        targets: Targets,
        logits: Tensor,
        deltas: Tensor,
        coder: BoxCoder,
    ) -> Assignment:
        """Called under `no_grad` for one image.

        anchors: (A, 4); level_sizes: anchors a level; logits (A, C), deltas (A, 4) and the coder are
        for assigners that look at the image's predictions.
        """
        raise NotImplementedError
