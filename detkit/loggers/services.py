"""Loggers of experiment trackers. Each is imported when a run starts, and is an extra of detkit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from detkit.loggers.base import LoggedRun, Logger, Status
from detkit.registry import LOGGERS, PathStr
from detkit.runs.settings import flatten

LONGEST_PARAMETER = 500
"""Characters of a parameter's value that MLflow takes."""


@LOGGERS.register()
class WandB(Logger):
    """Weights & Biases. Without network, `mode: offline` keeps everything in the run folder for `wandb sync`.

    Args:
        project: name of the project.
        entity: user or team; null for the default of the account.
        name: of the run; null for the name of the run folder.
        mode: online, offline, or disabled; null leaves it to WANDB_MODE.
        tags: of the run.
    """

    requires: ClassVar[Mapping[str, str]] = {"wandb": "wandb"}

    def __init__(
        self,
        *,
        project: str = "detkit",
        entity: str | None = None,
        name: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        tags: list[str] = [],  # noqa: B006
    ) -> None:
        self.project, self.entity, self.name, self.mode, self.tags = project, entity, name, mode, tags
        self.run: Any = None

    def start(self, run: LoggedRun) -> None:
        import wandb

        known = run.recall("wandb")
        self.run = wandb.init(
            project=self.project, entity=self.entity, name=self.name or run.folder.name, mode=self.mode,
            tags=self.tags, dir=str(run.folder), config=dict(run.config), id=known, resume="allow" if known else None,
        )  # fmt: skip
        run.remember("wandb", self.run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def log_image(self, step: int, name: str, path: Path) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path))}, step=step)

    def finish(self, status: Status) -> None:
        self.run.finish(exit_code=1 if status == "failed" else 0)


@LOGGERS.register()
class MLflow(Logger):
    """MLflow tracking: parameters, figures and pictures.

    Args:
        experiment: name of the experiment.
        tracking_uri: server or store, as `http://localhost:5000` or `sqlite:///mlflow.db`; null leaves it to
            MLFLOW_TRACKING_URI or MLflow's default.
        name: of the run; null for the name of the run folder.
        artifacts: folder for pictures of a local store; null for MLflow's default.
    """

    requires: ClassVar[Mapping[str, str]] = {"mlflow": "mlflow"}

    def __init__(
        self,
        *,
        experiment: str = "detkit",
        tracking_uri: str | None = None,
        name: str | None = None,
        artifacts: PathStr | None = None,
    ) -> None:
        self.experiment, self.tracking_uri, self.name, self.artifacts = experiment, tracking_uri, name, artifacts
        self.client: Any = None
        self.id = ""

    def start(self, run: LoggedRun) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(self.tracking_uri)
        known = run.recall("mlflow")
        if known:
            self.id = known
            self.client.update_run(self.id, status="RUNNING")
            return
        experiment = self.client.get_experiment_by_name(self.experiment)
        location = None if self.artifacts is None else Path(self.artifacts).as_uri()
        number = experiment.experiment_id if experiment else self.client.create_experiment(self.experiment, location)
        self.id = self.client.create_run(number, run_name=self.name or run.folder.name).info.run_id
        run.remember("mlflow", self.id)
        for key, value in flatten(run.config).items():
            self.client.log_param(self.id, key, str(value)[:LONGEST_PARAMETER])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def log_image(self, step: int, name: str, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), name)

    def finish(self, status: Status) -> None:
        states = {"finished": "FINISHED", "stopped": "KILLED"}
        self.client.set_terminated(self.id, states.get(status, "FAILED"))


@LOGGERS.register()
class Trackio(Logger):
    """Trackio, a local tracker with the interface of Weights & Biases; `trackio show` opens its page.

    Args:
        project: name of the project.
        name: of the run; null for the name of the run folder.
        space_id: Hugging Face Space that keeps the runs; null keeps them on this machine, in TRACKIO_DIR or Trackio's
            default folder.
    """

    requires: ClassVar[Mapping[str, str]] = {"trackio": "trackio"}

    def __init__(self, *, project: str = "detkit", name: str | None = None, space_id: str | None = None) -> None:
        self.project, self.name, self.space_id = project, name, space_id
        self.run: Any = None

    def start(self, run: LoggedRun) -> None:
        import trackio

        known = run.recall("trackio")
        self.run = trackio.init(
            self.project, known or self.name or run.folder.name, space_id=self.space_id, config=flatten(run.config),
            resume="allow" if known else "never", embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        run.remember("trackio", self.run.name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def log_image(self, step: int, name: str, path: Path) -> None:
        import trackio

        self.run.log({name: trackio.Image(path)}, step=step)

    def finish(self, status: Status) -> None:
        self.run.finish()
