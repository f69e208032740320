"""A hook: what happens around the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detkit.hooks.base import Hook, StepReport, Training
from detkit.registry import HOOKS, Fraction


@HOOKS.register()
class MyHook(Hook):
    """Records the highest loss since the last evaluation, and ends the training when AP is good enough.

    Args:
        above: AP that ends the training.
    """

    changes_training = False  # the weights after a step are the same with and without it

    # The arguments are the keys of the config. The constructor only stores them: it runs whenever a config is read.
    def __init__(self, *, above: Fraction = 0.5) -> None:
        self.above = above
        self.highest = 0.0

    # Change from here. docs/hooks.md lists all methods that a hook may have, and what it finds in `trainer`.
    def after_step(self, trainer: Training, report: StepReport) -> None:
        """After every step, on every rank."""
        self.highest = max(self.highest, report.loss)

    def after_evaluation(self, trainer: Training, figures: Mapping[str, float | None]) -> None:
        """After every evaluation, with the same figures on every rank."""
        trainer.log({"train/highest_loss": self.highest})
        self.highest = 0.0
        ap = figures["val/ap"]
        if ap is not None and ap > self.above:
            trainer.stop_everywhere(f"MyHook: AP {ap:.3f} is above {self.above}")

    # What a resumed run needs to go on as if nothing had happened.
    def state_dict(self) -> dict[str, Any]:
        return {"highest": self.highest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.highest = state["highest"]
