"""PolyFocal loss, the Poly-1 form (2204.12511, section 5.2)."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.focal_family import focal_family_sum
from detkit.losses.sigmoid import SigmoidLoss, check_alpha, check_not_negative
from detkit.registry import CLASS_LOSSES


@CLASS_LOSSES.register()
class PolyFocalLoss(SigmoidLoss):
    """Focal loss plus epsilon (1 - p_t)^(gamma + 1), both weighted by alpha_t.

    epsilon: added to the first coefficient of the loss as a polynomial in 1 - p_t; at least -1, where that
    term vanishes: the paper's choice for detection on COCO, made there on cross-entropy (Mask R-CNN). 0 gives
    focal loss. alpha, gamma, prior, weight: as in `SigmoidFocalLoss`.
    """

    def __init__(
        self,
        *,
        epsilon: float = -1.0,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        prior: float = 0.01,
        weight: float = 1.0,
    ) -> None:
        super().__init__(prior=prior, weight=weight)
        check_alpha(alpha)
        check_not_negative(gamma=gamma)
        if not epsilon >= -1:
            raise ValueError(f"epsilon: {epsilon} is below -1, where the loss falls as the prediction gets worse")
        self.epsilon, self.alpha, self.gamma = epsilon, alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        """See `ClassificationLoss.forward`."""
        columns = logits.new_ones(logits.shape[-1])
        gamma = columns * self.gamma
        return self.weight * focal_family_sum(logits, labels, self.alpha, gamma, columns, self.epsilon)[0]
