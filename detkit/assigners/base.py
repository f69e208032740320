"""The contract of an assigner."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from detkit.coders.base import BoxCoder
from detkit.structures import Assignment, Targets


class Assigner(nn.Module):
    """Decides, for every anchor of an image, which object it is to predict.

    positive_iou: IoU with an object from which on an anchor is positive, None where no such number exists.
    forces_best: whether an object's best anchor is positive below it, too. `detkit anchors check` reads both.
    """

    positive_iou: float | None = None
    forces_best: bool = False

    def forward(
        self,
        anchors: Tensor,
        level_sizes: tuple[int, ...],
        targets: Targets,
        scores: Callable[[], Tensor],
        deltas: Tensor,
        coder: BoxCoder,
    ) -> Assignment:
        """Called under `no_grad` for one image.

        anchors: (A, 4); level_sizes: anchors a level. For assigners that look at what the image's
        predictions are: `scores()` gives (A, K) in [0, 1] by the class loss's own link, at a cost that
        only who calls it pays; deltas (A, 4) are for `coder.decode`.
        """
        raise NotImplementedError
