"""Loggers of experiment trackers against the real libraries, with stores on this machine."""

from __future__ import annotations

import importlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detkit.loggers.base import Logger
from detkit.registry import LOGGERS
from detkit.testing import check_logger
from detkit.testing.hooks import log_some, logged_run

pytestmark = pytest.mark.slow


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[], Logger]]:
    """A logger by name, which keeps what it gets below `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    arguments: dict[str, dict[str, Any]] = {
        "WandB": {"mode": "offline"},
        "MLflow": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifacts": str(tmp_path / "artifacts")},
    }

    def of(name: str) -> Callable[[], Logger]:
        try:
            for package in LOGGERS.get(name).requires:
                importlib.import_module(package)
        except ImportError as error:
            pytest.skip(f"{name} can't be tested here: {error}")

        def build() -> Logger:
            logger: Logger = LOGGERS.build({"type": name, **arguments.get(name, {})})
            return logger

        return build

    return of


@pytest.mark.parametrize("name", ["WandB", "MLflow", "Trackio"])
def test_contract(make: Callable[[str], Any], name: str) -> None:
    check_logger(make(name))


def run_twice(build: Callable[[], Logger], folder: Path) -> dict[str, str]:
    """A run that was killed after step 3 and resumed after step 2; what loggers remember of it."""
    folder.mkdir()
    log_some(build(), logged_run(folder))
    notes = (folder / "loggers.json").read_text()
    log_some(build(), logged_run(folder, step=2))
    assert (folder / "loggers.json").read_text() == notes, "the same run"
    content: dict[str, str] = json.loads(notes)
    return content


def test_mlflow_has_the_figures_of_both_starts_in_one_run(make: Callable[[str], Any], tmp_path: Path) -> None:
    build = make("MLflow")
    number = run_twice(build, tmp_path / "my run")["mlflow"]
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(number)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "my run"
    assert run.data.params["optimizer.lr"] == "0.1"
    assert {m.step for m in client.get_metric_history(number, "train/loss")} == {1, 2, 3, 4, 5}
    assert run.data.metrics["val/ap50"] == 0.7
    assert [f.path for f in client.list_artifacts(number, "val/predictions")] == ["val/predictions/picture.png"]
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_wandb_keeps_an_offline_run_in_the_run_folder_and_its_id(make: Callable[[str], Any], tmp_path: Path) -> None:
    name = run_twice(make("WandB"), tmp_path / "run")["wandb"]
    kept = [path.name for path in (tmp_path / "run/wandb").glob("offline-run-*")]
    assert kept
    assert all(folder.endswith(f"-{name}") for folder in kept)
    assert list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert not (tmp_path / "wandb").exists()


def test_trackio_has_the_figures_of_both_starts_in_one_run(make: Callable[[str], Any], tmp_path: Path) -> None:
    assert run_twice(make("Trackio"), tmp_path / "run")["trackio"] == "run"
    import trackio.utils

    (store,) = Path(trackio.utils.TRACKIO_DIR).glob("detkit*.db")
    with sqlite3.connect(store) as database:
        rows = database.execute("select step, metrics from metrics where run_name = 'run'").fetchall()
    logged = [(step, json.loads(text)) for step, text in rows]
    losses = {step: values["train/loss"] for step, values in logged if "train/loss" in values}
    assert losses == {step: 1 / step for step in range(1, 6)}
