"""A class loss that changes in the course of a training, beside `WarmupAssigner`."""

from __future__ import annotations

from torch import Tensor

from detkit.losses.base import ClassificationLoss, change
from detkit.registry import CLASS_LOSSES, ClassLossNode, Fraction


@CLASS_LOSSES.register()
class WarmupLoss(ClassificationLoss):
    """One class loss first, another one later: TOOD begins with focal loss on hard targets (2108.07755, section 4).

    The link, and so the scores, are those of `then`; both must have the same columns.

    Args:
        first: the class loss that the training begins with.
        then: the one after it.
        until: fraction of the training after which `then` takes over; null: when the assigner changes, as
            `WarmupAssigner` does.
    """

    uses_progress = True

    def __init__(self, *, first: ClassLossNode, then: ClassLossNode, until: Fraction | None = 0.1) -> None:
        super().__init__()
        self.first, self.then, self.until = CLASS_LOSSES.build(first), CLASS_LOSSES.build(then), until
        if self.first.num_columns(2) != self.then.num_columns(2):
            raise ValueError(
                f"first, then: {type(self.first).__name__} and {type(self.then).__name__} differ in the columns of the "
                "head: take two losses on sigmoid scores, or two on softmax scores"
            )
        for key, part in (("first", self.first), ("then", self.then)):
            if part.joint:
                raise ValueError(
                    f"{key}: {type(part).__name__} is a loss of classes and boxes together, which can't follow or "
                    "precede another: use it as losses.classification itself"
                )
        self.uses_quality = self.first.uses_quality or self.then.uses_quality
        self.batch_wise = self.first.batch_wise or self.then.batch_wise
        self.needs_positives = self.first.needs_positives or self.then.needs_positives
        self.positives_only = self.first.positives_only or self.then.positives_only
        self.columns_apart = self.first.columns_apart and self.then.columns_apart
        self._progress = 1.0  # of the last forward; a part as an attribute would be in the checkpoint twice

    def num_columns(self, num_classes: int) -> int:
        columns: int = self.then.num_columns(num_classes)
        return columns

    def initial_bias(self, num_classes: int) -> Tensor:
        bias: Tensor = self.first.initial_bias(num_classes)
        return bias

    def start_score(self, num_classes: int) -> float | None:
        score: float | None = self.first.start_score(num_classes)
        return score

    def follow(self, changes_at: float | None) -> None:
        self.until = change(self.until, changes_at)
        self.first.follow(changes_at)
        self.then.follow(changes_at)

    def takes_quality(self, progress: float) -> bool:
        taken: bool = self._at(progress).takes_quality(progress)
        return taken

    def scores(self, logits: Tensor) -> Tensor:
        scores: Tensor = self.then.scores(logits)
        return scores

    def forward(
        self, logits: Tensor, labels: Tensor, quality: Tensor | None = None, *, progress: float = 0.0
    ) -> Tensor:
        self._progress, loss = progress, self._at(progress)
        inner = {"progress": progress} if loss.uses_progress else {}
        total: Tensor = loss(logits, labels, quality if loss.uses_quality else None, **inner)
        return total

    def _at(self, progress: float) -> ClassificationLoss:
        loss: ClassificationLoss = self.first if progress < change(self.until) else self.then
        return loss

    def take_accumulated(self) -> Tensor:
        sums: Tensor = self._at(self._progress).take_accumulated()
        return sums

    def end_step(self, totals: Tensor) -> None:
        self._at(self._progress).end_step(totals)
