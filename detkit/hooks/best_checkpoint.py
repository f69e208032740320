"""Keeps the weights that are best by a figure."""

from __future__ import annotations

from collections.abc import Mapping

from detkit.hooks.base import Hook, Training
from detkit.hooks.metrics import Mode, check_metric, is_better
from detkit.registry import HOOKS
from detkit.utils.types import Tree


@HOOKS.register()
class BestCheckpoint(Hook):
    """Keeps the weights with the best figure as `checkpoints/best_<figure>.pt`, beside the `best.pt` by AP.

    Args:
        metric: figure of the evaluation, as `val/ap50`.
        mode: max if more is better, min if less is.
    """

    changes_training = False

    def __init__(self, *, metric: str = "val/ap50", mode: Mode = "max") -> None:
        self.metric, self.mode = check_metric(metric), mode
        self.best: float | None = None

    def after_evaluation(self, trainer: Training, figures: Mapping[str, float | None]) -> None:
        value = figures[self.metric]
        if value is not None and is_better(value, self.best, self.mode):
            self.best = value
            trainer.save_weights(f"best_{self.metric.rpartition('/')[2]}")

    def state_dict(self) -> Tree:
        return {"best": self.best}

    def load_state_dict(self, state: Tree) -> None:
        self.best = state["best"]
