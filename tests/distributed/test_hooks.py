"""Hooks with two processes: the same decisions on both, the training of one process, and exact resuming."""

from __future__ import annotations

import re

import pytest

from tests.distributed.conftest import Tiny

pytestmark = pytest.mark.slow

HOOKS = (
    "hooks=[{type: Freeze, parts: [backbone], until: 7}, {type: MultiScale, every: 3, factors: [0.75, 1.0, 1.25]}, "
    "{type: EarlyStopping, patience: 2, min_delta: 2.0}, {type: LearningRateMonitor, every: 5}, "
    "{type: VisualizePredictions, images: 2}]"
)
SHORT = (
    HOOKS,
    "train.iterations=16",
    "train.eval_every=4",
    "train.checkpoint_every=5",
    "optimizer={type: SGD, lr: 0.01}",
)


def test_two_processes_stop_at_the_step_of_one_and_train_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = Tiny(tmp_path_factory.mktemp("hooks"))
    for name, more in (("one", ()), ("two", ("--procs", "2"))):
        tiny.finish(tiny.start(name, *SHORT, *more), seconds=400)
        text = (tiny.folder / name / "log.txt").read_text()
        assert re.search(r"EarlyStopping: val/ap has not become better .* stopped after step 12/16", text)
    assert len(list((tiny.folder / "two/predictions").iterdir())) == 3
    tiny.assert_same("one", "two", tolerance=1e-3)


def test_two_processes_that_are_killed_resume_to_the_same_bits(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = Tiny(tmp_path_factory.mktemp("hooks"))
    tiny.finish(tiny.start("whole", *SHORT, "--procs", "2"), seconds=400)
    process = tiny.start("killed", *SHORT, "--procs", "2", "--max-restarts", "0")
    tiny.wait_for_step("killed", 6, process, seconds=300)
    process.kill()
    process.communicate()
    tiny.finish(tiny.start("killed", *SHORT, "--procs", "2", "--resume"), seconds=400)
    tiny.assert_same("whole", "killed")
