"""A run on disk, as a Python object."""

from __future__ import annotations

import json
import operator
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from detkit.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, step_path
from detkit.config import Config, load_config
from detkit.hub import local_path
from detkit.predict.predictor import Predictor
from detkit.runs.export import Model, export
from detkit.runs.folder import CONFIG, CURVES, METRICS, RESULT
from detkit.runs.metrics import read_metrics
from detkit.utils.console import printable
from detkit.utils.outputs import Ledger
from detkit.utils.types import Tree, Value
from detkit.visualize import plot_curves

EVALUATION_ERROR = "evaluation_error"
"""Key of result.json: why the last evaluation of a finished training gave no figures."""


class RunResult(dict[str, Value]):
    """result.json: a mapping of everything in it, with the figures that are asked for most as attributes.

    A figure is None where there is no ground truth for it; ValueError where the last evaluation failed.
    """

    def figure(self, key: str) -> Value:
        """The value of a key; ValueError with the reason if the evaluation that makes it failed."""
        if key not in self and EVALUATION_ERROR in self:
            raise ValueError(f"there is no {key}: the last evaluation failed: {self[EVALUATION_ERROR]}")
        return self[key]

    @property
    def ap(self) -> float | None:
        """Average precision: mean over classes and IoU 0.50:0.05:0.95."""
        return cast("float | None", self.figure("ap"))

    @property
    def ap50(self) -> float | None:
        """AP at IoU 0.50."""
        return cast("float | None", self.figure("ap50"))

    @property
    def ap75(self) -> float | None:
        """AP at IoU 0.75."""
        return cast("float | None", self.figure("ap75"))

    @property
    def per_class(self) -> dict[str, dict[str, float | None]]:
        """Class name -> ap, ap50, ..."""
        return cast("dict[str, dict[str, float | None]]", self.figure("per_class"))

    @property
    def best_ap(self) -> float | None:
        """The highest AP of the run, which its checkpoint best.pt has."""
        return cast("float | None", self["best_ap"])

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self["step"])

    @property
    def train_seconds(self) -> float:
        """Training time, without evaluations."""
        return float(self["train_seconds"])


class Run:
    """The run in a folder, or at an address as `s3://...`: `Run("runs/quickstart").result.ap50`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = local_path(folder)
        if not (self.folder / CONFIG).is_file():
            raise FileNotFoundError(f"{printable(self.folder)} is not a run folder: it holds no {CONFIG}")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def config(self) -> Config:
        return load_config(self.folder / CONFIG)

    @property
    def result(self) -> RunResult:
        """The figures of the last evaluation, speed and environment; FileNotFoundError before the end of the run."""
        path = self.folder / RESULT
        if not path.is_file():
            raise FileNotFoundError(f"{printable(self.folder)} holds no {RESULT} yet: the run is not finished")
        return RunResult(json.loads(path.read_text(encoding="utf-8")))

    def metrics(self) -> list[Tree]:
        """One entry for each training step: `train/loss`, its terms, `lr`, `train/gradient_norm`, `time/step` ..."""
        return read_metrics(self.folder / METRICS)[0]

    def evaluations(self) -> list[Tree]:
        """One entry for each evaluation: `step`, `val/ap`, `val/ap50` ..."""
        return read_metrics(self.folder / METRICS)[1]

    def checkpoint(self, which: Literal["best", "last"] | int = "best") -> Checkpoint:
        """The best checkpoint (the newest if none was evaluated), the newest intact one, or that of a step.

        Raises ValueError for another word, and CheckpointError for a step whose checkpoint is not there.
        """
        if isinstance(which, str):
            if which not in ("best", "last"):
                raise ValueError(f"{which!r} is no checkpoint: best, last, or the number of a step")
            return load_checkpoint(self.folder, "best" if which == "best" else "newest")
        return read_checkpoint(step_path(self.folder, operator.index(which)))

    def predictor(self, *, device: str = "auto") -> Predictor:
        """A predictor with the weights of the best checkpoint."""
        return Predictor.from_checkpoint(self.folder, device=device)

    def export_card(self, folder: str | Path) -> Path:
        """Writes model.safetensors, config.json and README.md, a model card with the run's figures; returns the folder.

        The weights are those of the best checkpoint. `detkit.interop.load_any` reads the folder.
        """
        return export(self.exportable(), folder)

    def exportable(self) -> Model:
        """The best checkpoint with the figures that the run measured with its very weights, and its command."""
        saved = self.checkpoint("best")
        result = dict(self.result) if (self.folder / RESULT).is_file() else {}
        command = str(saved.start.get("command") or result.get("command", ""))
        if result.get("step") == saved.step:
            return Model(saved, result, command)
        matching = [entry for entry in self.evaluations() if entry.get("step") == saved.step]
        figures = {key.removeprefix("val/"): value for entry in matching[-1:] for key, value in entry.items()}
        return Model(saved, figures, command)

    def plot(self) -> Path:
        """Draws losses, learning rate and AP over the steps into the folder; returns the picture's path."""
        title, ledger = self.folder.name, Ledger(self.folder)
        return plot_curves(*read_metrics(self.folder / METRICS), self.folder / CURVES, title=title, ledger=ledger)
