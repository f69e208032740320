"""What a run notes of each of its starts, and what it says where a resume is not the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import detkit
from detkit.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint, step_path
from detkit.cli import main
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.registry import BACKBONES
from detkit.runs.starts import Start, facts, from_plain, read_starts, to_plain, with_starts
from detkit.train.parallel import has_own_statistics, other_processes
from detkit.utils.outputs import LEDGER
from tests.refusals import Refuses

ROOT = Path(__file__).parents[2]
PART = """
import importlib
from torch import nn
import start_helper
from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape

@BACKBONES.register()
class StartNet(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8), nn.ReLU()
        importlib.import_module("start_" + "late")
        self.out_shapes = {"c3": FeatureShape(8, 8)}

    def forward(self, images):
        return {"c3": self.act(self.norm(self.conv(images)))}
"""
CONFIG = """
_base_: {root}/configs/quickstart/shapes.yaml
imports: [start_part.py]
backbone: {{type: StartNet}}
neck: {{type: FPN, channels: 16, extra_levels: 1, norm: gn}}
head: {{type: SharedTowerHead, num_convs: 1, norm: gn}}
data:
  train: {{dataset: {{num_images: 4, size: 64}}}}
  val: {{dataset: {{num_images: 2, size: 64}}}}
  loader: {{batch_size: 2, num_workers: 0}}
train: {{iterations: 4, eval_every: 0, checkpoint_every: 2, tensorboard: false, device: cpu}}
schedule: {{warmup_iterations: 1}}
"""


def forget() -> None:
    """Takes the project's modules out of this process."""
    for name in [name for name in sys.modules if "start_part" in name or name in ("start_helper", "start_late")]:
        del sys.modules[name]


class Project:
    """A part with helpers, one imported while the part is built, a config, and a run that was cut off after step 2."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.part, self.helper = folder / "start_part.py", folder / "start_helper.py"
        self.late = folder / "start_late.py"

    def train(self, *more: str) -> int:
        """`detkit train` into the run folder, with the files as they are now, as in a new process."""
        forget()
        with BACKBONES.temporary():
            return self.train_on(*more)

    def train_on(self, *more: str) -> int:
        """The same in a process that has imported the files already."""
        return main(["train", str(self.folder / "config.yaml"), "--output", str(self.run), *more])

    def environment(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "environment.json").read_text())
        return found

    def cut_off(self, **changed: Any) -> None:
        """Takes back everything after step 2. changed: fields of the checkpoint that are written differently."""
        step_path(self.run, 4).unlink()
        (self.run / "result.json").unlink()
        path = step_path(self.run, 2)
        if changed:
            save_checkpoint(path, dataclasses.replace(read_checkpoint(path), **changed))

    def saved(self) -> Start:
        return from_plain(load_checkpoint(self.run, prefer="newest").start)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("starts")
    (folder / "start_part.py").write_text(PART)
    (folder / "start_helper.py").write_text("FACTOR = 1\n")
    (folder / "start_late.py").write_text("LATE = 1\n")
    (folder / "config.yaml").write_text(CONFIG.format(root=ROOT))
    settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    with BACKBONES.temporary(), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        assert Project(folder).train() == 0
        yield folder
    forget()
    torch.set_num_threads(settings[0])
    torch.use_deterministic_algorithms(settings[1])


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of the run, beside the very files that it began with, which are put back afterwards."""
    found = Project(trained)
    kept = [(file, file.read_text()) for file in (found.part, found.helper, found.late)]
    found.run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    yield found
    for file, text in kept:
        file.write_text(text)


def test_a_run_notes_its_code_and_its_machine(project: Project) -> None:
    (start,) = read_starts(project.run)
    assert {
        "start_part.py",
        "start_helper.py",
        "start_late.py",
        "detkit/train/trainer.py",
        "detkit/losses/focal.py",
    } <= start.code.keys()
    assert start.facts == facts(torch.device("cpu"), 1)
    assert {"threads", "capability", "instructions", "cpu", "device", "deterministic", "torch", "torchvision", "numpy",
            "pillow", "detkit"} <= start.facts.keys()  # fmt: skip
    assert start.facts["threads"] == torch.get_num_threads()
    assert project.saved().code == start.code
    assert json.loads((project.run / "result.json").read_text())["code"] == project.environment()["starts"][0]["code"]


@pytest.mark.parametrize("name", ["part", "helper", "late"])
def test_a_resume_with_edited_code_is_refused_by_the_file_s_name(
    project: Project, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.cut_off()
    before = project.environment()
    file: Path = getattr(project, name)
    file.write_text(file.read_text(encoding="utf-8").replace("ReLU", "SiLU").replace("1", "2"), encoding="utf-8")
    assert project.train("--resume") == 2
    error = capsys.readouterr().err
    assert f"  {file.name} has changed" in error
    assert "--allow code" in error
    assert str(step_path(project.run, 2)) in error
    assert project.environment() == before
    assert project.saved().step == 0


def test_a_checkpoint_that_was_copied_from_another_run_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_checkpoint(project.run, prefer="newest").start
    project.cut_off(start=saved | {"time": "2020-01-01T00:00:00+00:00", "command": "detkit train --init-from x"})
    assert project.train("--resume") == 2
    error = capsys.readouterr().err
    assert f"another run wrote {step_path(project.run, 2)}" in error
    assert "started at 2020-01-01T00:00:00+00:00 by `detkit train --init-from x`" in error
    (project.run / "environment.json").unlink()  # then nothing contradicts the checkpoint
    assert project.train("--resume") == 0


def test_a_file_that_was_edited_after_it_was_imported_counts_as_it_runs(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    forget()
    with BACKBONES.temporary():
        assert project.train_on("--overwrite") == 0
        before = read_starts(project.run)[0].code
        project.part.write_text(project.part.read_text().replace("ReLU", "SiLU"))
        capsys.readouterr()
        project.run = tmp_path / "again"
        assert project.train_on() == 0
        assert read_starts(project.run)[0].code == before
        assert "start_part.py was edited after this process had imported it" in capsys.readouterr().err
    project.cut_off()
    assert project.train("--resume") == 2  # a new process runs the new code
    assert "start_part.py has changed" in capsys.readouterr().err


def test_a_project_that_moved_goes_on_if_its_code_is_the_same(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.cut_off()
    shutil.copytree(project.folder, tmp_path / "moved", ignore=shutil.ignore_patterns("run"))
    moved = Project(tmp_path / "moved")
    moved.run = project.run
    monkeypatch.syspath_prepend(str(moved.folder))
    moved.part.write_text(moved.part.read_text().replace("ReLU", "SiLU"))
    assert moved.train("--resume") == 2
    assert "start_part.py has changed" in capsys.readouterr().err
    moved.part.write_text(project.part.read_text())
    assert moved.train("--resume") == 0
    assert read_starts(project.run)[1].changed == ()


def test_allowed_it_goes_on_and_is_noted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.cut_off()
    project.part.write_text(project.part.read_text().replace("ReLU", "SiLU"))
    assert project.train("--resume", "--allow", "code") == 0
    assert "warning: resumed: start_part.py has changed" in capsys.readouterr().err
    assert "resumed: start_part.py has changed" in (project.run / "log.txt").read_text()
    first, second = read_starts(project.run)
    assert first.code["start_part.py"] != second.code["start_part.py"]
    assert (second.step, second.changed, second.allowed) == (2, ("start_part.py has changed",), ("code",))
    assert project.saved().code == second.code
    assert len(project.environment()["code"]) == 2


def test_a_resume_with_the_same_code_is_a_second_start_without_a_word(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.cut_off()
    assert project.train("--resume") == 0
    assert "resumed:" not in capsys.readouterr().err
    first, second = read_starts(project.run)
    assert first.code == second.code
    assert (second.step, second.changed) == (2, ())
    assert len(project.environment()["code"]) == 1


def test_a_finished_run_has_nothing_to_resume_whatever_the_code_is(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.part.write_text(project.part.read_text() + "# later\n")
    before = project.environment()
    assert project.train("--resume") == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert project.environment() == before


def test_allow_is_for_a_resume_and_for_code(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.train("--allow", "code", "--overwrite") == 2
    assert "--allow code requires --resume" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        project.train("--resume", "--allow", "data")
    assert "invalid choice: 'data'" in capsys.readouterr().err


def test_a_checkpoint_of_an_older_detkit_is_resumed_with_a_warning(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"torch": "1.0", "detkit": detkit.__version__}
    project.cut_off(start={})
    old = {"command": "detkit train ...", "machine": {"threads": 7, "cpu": "old"}, "versions": versions}
    (project.run / "environment.json").write_text(json.dumps(old))
    (project.run / LEDGER).unlink()  # older than that as well
    assert project.train("--resume") == 0
    error = capsys.readouterr().err
    assert "does not say which code wrote it" in error
    assert "threads: 7 before, 1 now; torch: 1.0 before, " in error
    first, second = read_starts(project.run)
    assert (first.code, first.facts) == ({}, {"threads": 7, "cpu": "old", **versions})
    assert "start_part.py" in second.code


def test_other_threads_at_a_resume_are_said_and_noted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    saved = load_checkpoint(project.run, prefer="newest").start
    project.cut_off(start=saved | {"facts": saved["facts"] | {"threads": 3, "cpu": "another one"}})
    assert project.train("--resume") == 0
    said = capsys.readouterr().err
    assert "threads: 3 before, 1 now: from here on the same to rounding, not bit for bit" in said
    assert "cpu: another one before, " in said
    assert "threads: 3 before, 1 now" in read_starts(project.run)[1].changed[0]


def test_another_number_of_processes_under_bn_is_another_training(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = load_checkpoint(project.run, prefer="newest").start
    project.cut_off(start=saved | {"facts": saved["facts"] | {"processes": 2}})
    assert project.train("--resume") == 0
    sentence = (
        "2 processes before, 1 now: norm: bn normalises over the images of one process, so this is another training"
    )
    assert sentence in capsys.readouterr().err
    assert sentence in read_starts(project.run)[1].changed[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["backbone.norm=bn", "neck.norm=gn"], "norm: bn"),
        (["backbone.norm=gn", "neck.norm=bn"], "norm: bn"),
        (["backbone.norm=gn", "neck.norm=gn"], "the same to rounding, not bit for bit"),
        (["backbone.norm=sync_bn", "neck.norm=sync_bn"], "the same to rounding, not bit for bit"),
        (["backbone.norm=frozen_bn", "neck.norm=gn"], "the same to rounding, not bit for bit"),
        (["backbone.norm=bn", "backbone.freeze_at=5", "neck.norm=gn"], "the same to rounding, not bit for bit"),
        (["backbone.norm=gn", "neck.norm=gn", "losses.classification={type: GHMCLoss}"], "GHMCLoss looks at"),
    ],
)
def test_what_another_number_of_processes_means_for_each_norm(overrides: list[str], said: str) -> None:
    config = load_config(ROOT / "configs/quickstart/shapes.yaml", overrides)
    detector = build_detector(config, 2)
    sentence = other_processes(detector, 1, 4)
    assert sentence is not None
    assert sentence.startswith("1 process before, 4 now: ")
    assert said in sentence
    assert other_processes(detector, 4, 4) is None


def test_frozen_stages_have_no_statistics_of_their_own_and_the_mode_stays() -> None:
    config = load_config(
        ROOT / "configs/quickstart/shapes.yaml", ["backbone.norm=bn", "backbone.freeze_at=5", "neck.norm=gn"]
    )
    detector = build_detector(config, 2).eval()
    assert not has_own_statistics(detector)
    assert not any(m.training for m in detector.modules())
    assert has_own_statistics(nn.Sequential(nn.BatchNorm2d(2)).eval())


def test_starts_come_back_as_they_were_and_equal_code_is_kept_once(refuses: Refuses, tmp_path: Path) -> None:
    starts = [
        Start(code={"a.py": "1"}, facts={"threads": 1}),
        Start(code={"a.py": "1"}, step=3, changed=("x",)),
        Start(),
    ]
    content = with_starts({"git": "abc"}, starts)
    assert len(content["code"]) == 1
    (tmp_path / "environment.json").write_text(json.dumps(content))
    assert read_starts(tmp_path) == starts
    assert [from_plain(to_plain(start)) for start in starts] == starts
    (tmp_path / "environment.json").write_text("{")
    with refuses(ValueError):
        read_starts(tmp_path)
    assert read_starts(tmp_path / "nothing") == []
