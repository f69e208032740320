"""A bench that really runs: its threads, its interruptions, and a part that is edited between its variants."""

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.checkpoint import load_checkpoint
from detkit.cli import main
from detkit.compare import cell
from detkit.compare.cell import run_cell
from detkit.compare.cell_folder import CELL
from detkit.compare.launchers import LauncherChoice, launch_local, threads_of_cores
from detkit.compare.plan import make_plan, read_plan_json
from detkit.compare.results import collect_results
from detkit.compare.run import run_bench, threads_of
from detkit.config import load_config
from detkit.registry import BACKBONES
from detkit.runs.folder import ENVIRONMENT, RESULT
from tests.compare.made_up import BCE, CONFIG, FOCAL, SHORT, change, checks, failed, made_up, sign
from tests.refusals import Refuses

ROOT = Path(__file__).parents[2]
PART = """
from torch import nn
from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape

@BACKBONES.register()
class BenchNet(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 8, 8), nn.ReLU()
        self.out_shapes = {"c3": FeatureShape(8, 8)}

    def forward(self, images):
        return {"c3": self.act(self.conv(images))}
"""
BASE = f"""
_base_: {ROOT}/{CONFIG}
imports: [bench_part.py]
backbone: {{type: BenchNet}}
neck: {{type: FPN, channels: 16, extra_levels: 1, norm: gn}}
head: {{type: SharedTowerHead, num_convs: 1, norm: gn}}
data:
  train: {{dataset: {{num_images: 4, size: 64}}}}
  val: {{dataset: {{num_images: 2, size: 64}}}}
  loader: {{batch_size: 2, num_workers: 0}}
train: {{iterations: 4, eval_every: 0, checkpoint_every: 2, tensorboard: false, device: cpu}}
schedule: {{warmup_iterations: 1}}
"""


class Project:
    """A config with a part of its own and two variants, and their bench of one seed."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.part, self.bench = folder, folder / "bench_part.py", folder / "bench"
        self.part.write_text(PART)
        (folder / "base.yaml").write_text(BASE)
        (folder / "a.yaml").write_text("losses: {classification: {type: SigmoidFocalLoss}}\n")
        (folder / "c.yaml").write_text("losses: {classification: {type: BCELoss}}\n")

    def edit_part(self) -> None:
        self.part.write_text(self.part.read_text().replace("ReLU", "SiLU"))

    def compare(self, *variants: Any, jobs: int = 1, allow: Any = ()) -> Any:
        """Runs the bench, the cells in this process; gives back exit code, results and the cells' exit codes."""
        codes = {}

        def launcher(jobs: Any, *, at_once: Any, threads: Any, finished: Any, started: Any) -> None:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            for job in jobs:
                codes[job.name] = cell.main(list(job.arguments[3:]))
            torch.set_num_threads(before)

        files = [self.folder / name for name in variants]
        choice = LauncherChoice(launcher, threads_of_cores)
        with fresh_import():
            plan = make_plan(self.folder / "base.yaml", files, seeds=[0])
            code = run_bench(plan, self.bench, jobs=jobs, command="", launcher=choice, allow=allow)
        return code, json.loads((self.bench / "results.json").read_text()), codes

    def cut_off(self, variant: Any) -> Any:
        """Takes back everything after step 2 of a run; gives back its weights at the end."""
        run = self.bench / "cells" / variant / "seed_0"
        weights = load_checkpoint(run, prefer="newest").model
        for name in (CELL, RESULT, "checkpoints/step_00000004.pt"):
            (run / name).unlink()
        return weights


@contextlib.contextmanager
def fresh_import() -> Iterator[None]:
    """Imports the part's file as it is now, and forgets the part afterwards."""
    try:
        with BACKBONES.temporary():
            yield
    finally:
        for name in [name for name in sys.modules if "bench_part" in name]:
            del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_resamples: None) -> Iterator[Any]:
    monkeypatch.setattr("detkit.train.summary.draw", lambda session: None)  # most of the time of so short a run
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    deterministic = torch.are_deterministic_algorithms_enabled()
    with fresh_import():
        yield Project(tmp_path)
    torch.use_deterministic_algorithms(deterministic)


SAID = "code (bench_part.py differs: one version in b, seed 0, another in a, seed 0)"


def test_a_part_that_is_edited_between_two_variants_withholds_the_verdict(
    project: Any, caplog: pytest.LogCaptureFixture
) -> None:
    code, results, _ = project.compare("a.yaml", "c.yaml")
    assert (code, results["withheld"]) == (0, [])
    project.edit_part()
    (project.folder / "b.yaml").write_text((project.folder / "a.yaml").read_text())
    caplog.set_level(logging.INFO, logger="detkit")
    code, results, codes = project.compare("a.yaml", "c.yaml", "b.yaml")
    assert codes == {"b, seed 0": 0}
    assert code == 1
    assert results["withheld"] == [f"not fair: {SAID}"]
    assert "the code has changed: bench_part.py has changed since a, seed 0, c, seed 0 ran" in caplog.text
    assert f"No verdict: not fair: {SAID}" in caplog.text


@pytest.mark.slow
def test_so_it_does_in_processes_of_their_own(project: Any) -> None:
    def compare(*variants: Any) -> Any:
        command = [
            sys.executable,
            "-m",
            "detkit",
            "compare",
            "base.yaml",
            *variants,
            "--output",
            "bench",
            "--seeds",
            "1",
        ]
        return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=300, check=False)

    assert compare("a.yaml", "c.yaml").returncode == 0
    project.edit_part()
    (project.folder / "b.yaml").write_text((project.folder / "a.yaml").read_text())
    done = compare("a.yaml", "c.yaml", "b.yaml")
    assert done.returncode == 1, done.stderr
    assert f"No verdict: not fair: {SAID}" in done.stdout


def test_a_run_that_was_cut_off_resumes_only_with_its_own_code_and_with_its_threads(
    project: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert project.compare("a.yaml", "c.yaml")[0] == 0
    want, text = project.cut_off("c"), project.part.read_text()
    monkeypatch.delenv("OMP_NUM_THREADS")
    project.edit_part()
    code, results, codes = project.compare("a.yaml", "c.yaml")
    assert (code, codes) == (1, {"c, seed 0": 2})
    assert not results["complete"]
    error = capsys.readouterr().err
    assert "bench_part.py has changed" in error
    assert "--allow code" in error

    project.part.write_text(text)
    code, results, codes = project.compare("a.yaml", "c.yaml", jobs=7)
    assert (code, codes) == (0, {"c, seed 0": 0})
    have = load_checkpoint(project.bench / "cells/c/seed_0", prefer="newest").model
    assert all(torch.equal(value, have[name]) for name, value in want.items())
    assert results["machine"]["threads"] == "2"
    assert "the same in all 3 starts of 2 runs" in checks(results)["code"]["detail"]


@pytest.mark.slow
def test_a_resumed_cell_with_allowed_code_is_shown_as_a_difference(project: Any) -> None:
    assert project.compare("a.yaml", "c.yaml")[0] == 0
    project.cut_off("c")
    project.edit_part()
    code, results, codes = project.compare("a.yaml", "c.yaml", allow=["code"])
    assert (code, codes) == (0, {"c, seed 0": 0})
    assert checks(results)["code"]["ok"] is False
    assert "c, seed 0, resumed after step 2: bench_part.py has changed" in checks(results)["code"]["detail"]
    assert main(["compare", "report", str(project.bench)]) == 1


# ---- how many threads


def plan_of(*, overrides: Any = ()) -> Any:
    return make_plan(CONFIG, [FOCAL, BCE], seeds=[0], overrides=[*SHORT, *overrides])


def eight_cores(jobs: int) -> int:
    return 8 // jobs


LAUNCHER = LauncherChoice(launch_local, eight_cores)


def test_a_new_bench_takes_the_user_s_threads_and_else_a_share(
    refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of(plan_of(), tmp_path, 2, LAUNCHER) == 4
    for text, threads in (("3", 3), ("5,2", 5), ("", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads_of(plan_of(), tmp_path, 2, LAUNCHER) == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with refuses(ValueError):
        threads_of(plan_of(), tmp_path, 2, LAUNCHER)


def test_threads_are_written_into_the_plan_and_given_to_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    given = []

    def launcher(jobs: Any, *, at_once: Any, threads: Any, finished: Any, started: Any) -> None:
        given.append((len(jobs), threads))

    assert run_bench(plan_of(), tmp_path, jobs=2, command="", launcher=LauncherChoice(launcher, eight_cores)) == 1
    assert read_plan_json(tmp_path)["threads"] == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert run_bench(plan_of(), tmp_path, jobs=1, command="", launcher=LauncherChoice(launcher, eight_cores)) == 1
    assert given == [(2, 3), (2, 3)], "another --jobs gives no other threads"


def test_another_number_by_the_user_is_refused_while_there_is_something_to_run(
    refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_up(tmp_path, seeds=[0])
    change(folder, "plan.json", signed=False, threads=2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_of(plan_of(), folder, 1, LAUNCHER) == 2
    (folder / "cells/bce/seed_0" / CELL).unlink()
    with refuses(ValueError):
        threads_of(plan_of(), folder, 1, LAUNCHER)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of(plan_of(), folder, 1, LAUNCHER) == 2


def test_a_bench_of_an_older_detkit_keeps_the_threads_that_its_runs_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folder = made_up(tmp_path, seeds=[0], old="1234")
    assert read_plan_json(folder)["threads"] is None
    assert threads_of(plan_of(), folder, 1, LAUNCHER) == 2
    path = folder / "cells/bce/seed_0" / ENVIRONMENT
    path.write_text(json.dumps({"machine": {"threads": 5}}))
    assert threads_of(plan_of(), folder, 1, LAUNCHER) == 8, "mixed: nothing to keep"


def test_explicit_threads_of_the_config_need_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_up(tmp_path, seeds=[0], overrides=["train.threads=1"])
    change(folder, "plan.json", signed=False, threads=2)
    (folder / "cells/bce/seed_0" / CELL).unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_of(plan_of(overrides=["train.threads=1"]), folder, 1, LAUNCHER) == 2


# ---- a run that is made again


def test_what_was_edited_is_not_signed_again_when_a_run_is_completed_a_second_time(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, [FOCAL, BCE], seeds=[0], overrides=SHORT)
    one = next(plan.cells(tmp_path)).folder
    config = load_config(CONFIG, [*SHORT, "seed=0"], overlays=[FOCAL])
    assert run_cell(config, one) == 0
    honest = json.loads((one / RESULT).read_text())["ap"]
    change(one, RESULT, signed=False, ap=0.9)
    (one / CELL).unlink()
    assert run_cell(config, one) == 0
    assert json.loads((one / RESULT).read_text())["ap"] == honest


def test_a_bench_in_a_process_of_its_own_says_nothing_false_of_a_damaged_start(tmp_path: Path) -> None:
    folder = made_up(tmp_path, seeds=[0])
    (folder / "cells/bce/seed_0/start.json").write_text("{")
    sign(folder / "cells/bce/seed_0")
    results = collect_results([folder])
    assert results["withheld"] == ["bce: seed 0 failed"]
    assert failed(results) == []
