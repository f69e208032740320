"""Ends a training that gets no better."""

from __future__ import annotations

from collections.abc import Mapping

from detkit.hooks.base import Hook, Training
from detkit.hooks.metrics import Mode, check_metric, is_better
from detkit.registry import HOOKS, NonNegative, NonNegativeInt, PositiveInt
from detkit.utils.types import Tree


@HOOKS.register()
class EarlyStopping(Hook):
    """Ends the training when a figure of the evaluation has not become better for some evaluations.

    Args:
        metric: figure that is watched, as `val/ap` or `val/ap50`.
        patience: evaluations in a row without a better figure after which the training ends.
        min_delta: a figure counts as better if it is better by more than this.
        mode: max if more is better, min if less is.
        from_step: evaluations before this step don't count.
    """

    changes_training = False  # of the steps that are done, as train.max_minutes

    def __init__(
        self,
        *,
        metric: str = "val/ap",
        patience: PositiveInt = 5,
        min_delta: NonNegative = 0.0,
        mode: Mode = "max",
        from_step: NonNegativeInt = 0,
    ) -> None:
        self.metric, self.patience, self.min_delta, self.mode = check_metric(metric), patience, min_delta, mode
        self.from_step = from_step
        self.best: float | None = None
        self.best_step, self.last_step, self.waited = 0, -1, 0

    def before_train(self, trainer: Training) -> None:
        if not trainer.eval_every:
            raise ValueError("train.eval_every is 0, so there is no evaluation to stop after: set it, e.g. to 500")
        self.stop_if_exhausted(trainer)

    def after_evaluation(self, trainer: Training, figures: Mapping[str, float | None]) -> None:
        value = figures[self.metric]
        if value is None or trainer.step < self.from_step or trainer.step <= self.last_step:
            return
        self.last_step = trainer.step
        if is_better(value, self.best, self.mode, self.min_delta):
            self.best, self.best_step, self.waited = value, trainer.step, 0
        else:
            self.waited += 1
        self.stop_if_exhausted(trainer)

    def stop_if_exhausted(self, trainer: Training) -> None:
        """Ends the training if the patience is used up; also that of a run which is resumed after it was."""
        if self.waited >= self.patience and trainer.step < trainer.iterations:
            trainer.stop_everywhere(
                f"EarlyStopping: {self.metric} has not become better than {self.best:.4f} of step {self.best_step} for "
                f"{self.waited} evaluations; stopped after step {trainer.step}/{trainer.iterations}"
            )

    def state_dict(self) -> Tree:
        return {
            "best": self.best, "best_step": self.best_step, "last_step": self.last_step, "waited": self.waited,
        }  # fmt: skip

    def load_state_dict(self, state: Tree) -> None:
        self.best, self.best_step = state["best"], state["best_step"]
        self.last_step, self.waited = state["last_step"], state["waited"]
