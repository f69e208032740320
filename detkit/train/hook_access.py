"""What hooks reach through the trainer besides its own state: settings, the run folder, recording, predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from detkit.structures import ClassMap, Detections, Targets
from detkit.train.options import TrainOptions

Rows = list[tuple[Tensor, Targets, Detections]]
"""An image (3, H, W), its targets and its detections, in pixels of the image."""


@dataclass(kw_only=True)
class Surroundings:
    """The run around a trainer.

    save_weights, predictions: see `detkit.hooks.base.Training`. record, record_image: take figures, or a picture's name
    and path, of a step.
    """

    folder: Path
    classes: ClassMap
    validation_images: int
    size_divisor: int
    save_weights: Callable[[str], Path]
    predictions: Callable[[Sequence[int]], Rows]
    record: Callable[[int, Mapping[str, float]], None]
    record_image: Callable[[int, str, Path], None]


class HookAccess:
    """The members of the trainer that only hooks use; `detkit.hooks.base.Training` describes them.

    around: the run that the trainer works for; hooks of a config need it.
    """

    options: TrainOptions
    step: int
    around: Surroundings | None = None

    @property
    def run_around(self) -> Surroundings:
        """`around`; RuntimeError for a trainer without a run."""
        if self.around is None:
            raise RuntimeError("this trainer has no run around it: set Trainer.around")
        return self.around

    @property
    def iterations(self) -> int:
        return self.options.iterations

    @property
    def eval_every(self) -> int:
        return self.options.eval_every

    @property
    def log_every(self) -> int:
        return self.options.log_every

    @property
    def folder(self) -> Path:
        return self.run_around.folder

    @property
    def classes(self) -> ClassMap:
        return self.run_around.classes

    @property
    def validation_images(self) -> int:
        return self.run_around.validation_images

    @property
    def size_divisor(self) -> int:
        return self.run_around.size_divisor

    def log(self, values: Mapping[str, float]) -> None:
        self.run_around.record(self.step, {name: float(value) for name, value in values.items()})

    def log_image(self, name: str, path: Path) -> None:
        self.run_around.record_image(self.step, name, path)

    def save_weights(self, name: str) -> Path:
        return self.run_around.save_weights(name)

    def predictions(self, indices: Sequence[int]) -> Rows:
        return self.run_around.predictions(indices)
