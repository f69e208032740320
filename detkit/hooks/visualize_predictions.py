"""Draws what the model in training predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from detkit.hooks.base import Hook, StepReport, Training, step_random
from detkit.registry import HOOKS, Fraction, NonNegativeInt, PositiveInt
from detkit.runs.folder import PICTURES, note_growing


@HOOKS.register()
class VisualizePredictions(Hook):
    """Draws validation images with truth and prediction into `predictions/` of the run folder, and for the loggers.

    Args:
        images: number of images.
        every: steps between two pictures; 0 for one with every evaluation.
        min_score: lowest score of a detection that is drawn.
        choice: fixed draws the same images every time, random others for each picture; both are functions of the seed.
    """

    changes_training = False

    def __init__(
        self,
        *,
        images: PositiveInt = 8,
        every: NonNegativeInt = 0,
        min_score: Fraction = 0.3,
        choice: Literal["fixed", "random"] = "fixed",
    ) -> None:
        self.images, self.every, self.min_score, self.choice = images, every, min_score, choice

    def after_step(self, trainer: Training, report: StepReport) -> None:
        if self.every and report.step % self.every == 0:
            self.draw(trainer)

    def after_evaluation(self, trainer: Training, figures: Mapping[str, float | None]) -> None:
        if not self.every:
            self.draw(trainer)

    def indices(self, trainer: Training) -> list[int]:
        """The images of the present step's picture, ascending."""
        random = step_random(trainer.seed, trainer.step if self.choice == "random" else 0, "VisualizePredictions")
        count = trainer.validation_images
        return sorted(random.sample(range(count), min(self.images, count)))

    def draw(self, trainer: Training) -> None:
        """Writes the picture, on rank 0; all ranks call it together."""
        from detkit.visualize import picture_grid

        rows = trainer.predictions(self.indices(trainer))
        if trainer.rank > 0:
            return
        path = trainer.folder / PICTURES / f"step_{trainer.step:08d}.png"
        note_growing(trainer.folder, [path])
        title = f"{trainer.folder.name}, step {trainer.step}"
        picture_grid(rows, trainer.classes, path, min_score=self.min_score, title=title)
        trainer.log_image("val/predictions", path)
