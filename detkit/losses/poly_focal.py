"""PolyFocal loss, the Poly-1 form (2204.12511, section 5.2)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from detkit.losses.focal_family import focal_family_sum
from detkit.losses.sigmoid import SigmoidLoss
from detkit.registry import CLASS_LOSSES, Fraction, NonNegative, OpenFraction


@CLASS_LOSSES.register()
class PolyFocalLoss(SigmoidLoss):
    """Focal loss plus epsilon (1 - p_t)^(gamma + 1), both weighted by alpha_t.

    Args:
        epsilon: added to the first coefficient of the loss as a polynomial in 1 - p_t. At -1 that term vanishes: the
            paper's choice for detection on COCO, made there on cross-entropy (Mask R-CNN). Below -1 the loss would
            fall as the prediction gets worse. 0 gives focal loss.
        alpha: weight of positives; negatives get 1 - alpha. None weighs both alike.
        gamma: exponent that fades easy examples.
        prior: foreground probability that every anchor starts with.
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        epsilon: Annotated[float, Ge(-1)] = -1.0,
        alpha: Fraction | None = 0.25,
        gamma: NonNegative = 2.0,
        prior: OpenFraction = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        self.epsilon, self.alpha, self.gamma = epsilon, alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        columns = logits.new_ones(logits.shape[-1])
        gamma = columns * self.gamma
        return self.weight * focal_family_sum(logits, labels, self.alpha, gamma, columns, self.epsilon)[0]
