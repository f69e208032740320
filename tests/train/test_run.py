"""`detkit train` as a user runs it, on a few generated images."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.checkpoint import load_checkpoint, save_checkpoint, step_path
from detkit.cli import main
from detkit.config import load_config
from detkit.data.datasets.records import Records
from detkit.runs.folder import lock_run_folder

CONFIG = str(Path(__file__).parents[2] / "configs" / "quickstart" / "shapes.yaml")
TINY = [
    "neck.channels=16", "head.num_convs=1", "schedule.warmup_iterations=3", "train.iterations=12",
    "data.train.dataset.num_images=12", "data.val.dataset.num_images=4",
    "data.train.dataset.size=64", "data.val.dataset.size=64", "data.loader.batch_size=4",
    "data.loader.num_workers=0", "train.accumulate=2", "train.eval_every=0", "train.checkpoint_every=3",
    "train.threads=1", "train.device=cpu", "train.tensorboard=false", "train.log_every=4",
]  # fmt: skip


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """A run sets torch up for itself; the other tests get back what they had."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def train(output: Path, *more: str) -> int:
    return main(["train", CONFIG, *TINY, "--output", str(output), *more])


def steps(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [r["step"] for r in map(json.loads, lines) if "train/loss" in r]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    threads = torch.get_num_threads()
    assert train(run) == 0
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    return run


def test_leaves_everything_in_the_run_folder(finished: Path) -> None:
    assert {p.name for p in finished.iterdir()} >= {
        "checkpoints", "config.yaml", "curves.png", "environment.json", "log.txt", "metrics.jsonl",
        "predictions.png", "result.json",
    }  # fmt: skip
    result = json.loads((finished / "result.json").read_text())
    assert {"ap", "ap50", "ap75", "per_class", "train_seconds", "images_per_second", "peak_memory_mb",
            "command", "versions", "machine", "git"} <= result.keys()  # fmt: skip
    assert result["step"] == 12
    assert result["images_per_second"] * result["train_seconds"] == pytest.approx(12 * 4, rel=0.05)
    assert steps(finished) == list(range(1, 13))
    assert load_config(finished / "config.yaml") == load_config(CONFIG, TINY)
    log = (finished / "log.txt").read_text()
    for word in (
        "4 images per step (1 process x 2 micro-batches x 2)",
        "PositiveCount",
        "M parameters",
        "what to try next",
    ):
        assert word in log


def test_says_how_fast_it_was(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    rows = [r for r in lines if "train/loss" in r]
    assert all(0 <= r["time/data"] < r["time/step"] and r["memory/peak_mb"] > 10 for r in rows)
    assert sum(r["time/step"] for r in rows) == pytest.approx(rows[-1]["time/train"], abs=0.01)
    result = json.loads((finished / "result.json").read_text())
    times = sorted(r["time/step"] for r in rows[3:])
    assert result["step_seconds"] == {"p50": times[4], "p95": times[8]}
    assert 0 < result["data_share"] < 1
    log = (finished / "log.txt").read_text()
    assert re.search(r"step 12/12 .* images/s  step [\d.]+ s \(p95 [\d.]+\)  waiting for data \d+%  peak memory", log)


@pytest.mark.slow
def test_a_profile_is_a_trace_of_some_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "train.iterations=8", "train.checkpoint_every=0", "--profile", "2") == 0
    trace = json.loads((tmp_path / "run" / "profile_rank0.json").read_text())
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert len([name for name in names if name.startswith("ProfilerStep#")]) >= 2
    assert "aten::convolution" in names
    out = capsys.readouterr().out
    assert "profile of 2 steps" in out
    assert "Self CPU %" in out
    assert (tmp_path / "run" / "result.json").exists(), "the run goes on to its end"


@pytest.mark.slow
def test_a_run_shorter_than_the_warm_up_leaves_no_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "train.iterations=2", "schedule.warmup_iterations=0", "--profile") == 0
    assert "--profile: the run ended within its first 5 steps" in capsys.readouterr().err
    assert train(tmp_path / "none", "--profile", "0") == 2


def test_a_loader_worker_that_dies_ends_the_run_with_its_images(tmp_path: Path) -> None:
    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        "import os, signal\n"
        "from torch.utils.data import get_worker_info\n"
        "from detkit.data.transforms.base import Transform\n"
        "from detkit.registry import TRANSFORMS\n"
        "@TRANSFORMS.register()\n"
        "class Deadly(Transform):\n"
        "    made = 0\n"
        "    def __call__(self, image, boxes, labels):\n"
        "        Deadly.made += get_worker_info() is not None\n"
        "        if Deadly.made == 10:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return image, boxes, labels\n"
    )
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"imports: [{plugin}]\ndata: {{train: {{transforms: [{{type: Deadly}}]}}}}\n")
    command = [sys.executable, "-m", "detkit", "train", CONFIG, *TINY, "data.loader.num_workers=1"]
    command += ["--overlay", str(overlay)]
    done = subprocess.run([*command, "--output", str(tmp_path / "run")], capture_output=True, text=True, timeout=100)
    assert done.returncode == 6, done.stderr
    assert "error: data loader worker 0 (process" in done.stderr
    assert "died while loading image" in done.stderr
    assert "Traceback" not in done.stderr
    assert "died while loading image" in (tmp_path / "run" / "log.txt").read_text()


def test_no_loader_process_and_no_temporary_folder_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "detkit", "train", CONFIG, *TINY, "data.loader.num_workers=1"]
    with tempfile.TemporaryDirectory() as scratch:  # pytest's own is too long for sockets
        subprocess.run(
            [*command, "--output", str(tmp_path / "run")], env={**os.environ, "TMPDIR": scratch}, check=True,
            capture_output=True, timeout=120,
        )  # fmt: skip
        assert not list(Path(scratch).glob("pymp-*")), "workers that were killed leave theirs"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a small file system")
def test_a_full_disk_ends_the_run_and_it_goes_on_from_the_last_good_checkpoint(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=280m", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        command = [sys.executable, "-m", "detkit", "train", CONFIG, *TINY, "--output", str(small / "run")]
        more = ["train.checkpoint_every=2", "train.keep_last=9", "train.iterations=40"]
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=200)
        assert done.returncode == 5, done.stderr
        assert "No space left on device. Free on that file system:" in done.stderr
        assert "Traceback" not in done.stderr
        good = load_checkpoint(small / "run", prefer="newest")
        assert good.step >= 2
        assert f"last good checkpoint: {good.path}" in done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_killed_at_a_random_step_and_resumed_it_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    at = random.SystemRandom().randint(4, 9)
    command = [sys.executable, "-m", "detkit", "train", CONFIG, *TINY, "--output", str(run)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ)
    metrics, limit = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < at:
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "result.json").exists(), "it was killed too late to prove anything"
    assert train(run, "--resume") == 0
    want, have = (load_checkpoint(r, prefer="newest") for r in (finished, run))
    assert want.step == have.step == 12
    for name in ("model", "ema"):
        a, b = getattr(want, name), getattr(have, name)
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == [], f"killed after step {at}"
    assert steps(run) == list(range(1, 13))
    assert_same_results(finished, run)


def assert_same_results(a: Path, b: Path) -> None:
    first, second = (json.loads((r / "result.json").read_text()) for r in (a, b))
    assert {k: first[k] for k in ("ap", "ap50", "per_class")} == {k: second[k] for k in ("ap", "ap50", "per_class")}


def test_the_same_run_twice_is_the_same(finished: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "again", "train.eval_every=5", "train.log_every=1") == 0
    losses = [
        [(r["step"], r["train/loss"], r["train/gradient_norm"]) for r in map(json.loads, lines) if "train/loss" in r]
        for lines in ((r / "metrics.jsonl").read_text().splitlines() for r in (finished, tmp_path / "again"))
    ]
    assert losses[0] == losses[1]
    assert_same_results(finished, tmp_path / "again")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["--resume", "--overwrite"]),
        (["--resume", "optimizer.lr=0.5"], ["optimizer.lr: 0.0015 in the run, 0.5 now", "--init-from"]),
        (["--resume", "train.iterations=24"], ["train.iterations: 12 in the run, 24 now", "learning rate"]),
        (["--resume", "--overwrite"], ["choose one"]),
        (["--overwrite", "--init-from", "RUN"], ["delete"]),
    ],
)
def test_refuses_to_spoil_a_run(
    finished: Path, more: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.name for p in (finished / "checkpoints").iterdir())
    assert train(finished, *[str(finished) if m == "RUN" else m for m in more]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == before


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_folder_in_which_another_run_trains_is_left_alone(
    finished: Path, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detkit.train.run.lock_run_folder", partial(lock_run_folder, wait=0.1))
    script = "import sys, time, pathlib; from detkit.runs.folder import lock_run_folder\n"
    script += "with lock_run_folder(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, str(finished)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    try:
        assert train(finished, flag) == 2
        assert f"{finished} is in use: process {other.pid} on" in capsys.readouterr().err
        assert (finished / "result.json").exists()
    finally:
        other.kill()
        other.communicate()


def test_a_run_does_not_go_on_with_changed_annotations(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_checkpoint(finished, prefer="newest").data
    assert before.keys() == {"training data", "validation data"}
    monkeypatch.setattr(Records, "content_hash", lambda self: "changed")
    assert train(finished, "--resume") == 2
    error = capsys.readouterr().err
    assert f"training data: {before['training data']} in the run," in error
    assert "annotations have changed" in error
    assert "--init-from" in error


def test_a_run_of_an_older_detkit_is_resumed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its data hashes are of the training boxes alone, and its config has no `data.classes`."""
    newest = load_checkpoint(finished, prefer="newest")
    older = dict(newest.config, data={k: v for k, v in newest.config["data"].items() if k != "classes"})
    assert newest.path is not None
    data = {name: value.split("+")[0] for name, value in newest.data.items()}
    save_checkpoint(newest.path, replace(newest, data=data, config=older))
    assert train(finished, "--resume") == 0
    assert "is finished: nothing to resume" in capsys.readouterr().out
    save_checkpoint(newest.path, newest)


def test_resuming_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "new", "--resume") == 2
    assert "start the run without --resume" in capsys.readouterr().err


def test_resuming_a_finished_run_does_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "result.json").stat().st_mtime_ns
    assert train(finished, "--resume") == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert (finished / "result.json").stat().st_mtime_ns == before


def test_a_run_with_other_anchors_says_what_it_does_not_take_over(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["train.iterations=1", "schedule.warmup_iterations=0", "optimizer.lr=0.0"]
    more += ["anchors.base_scale=3.0", "pixels.order=bgr"]
    assert train(tmp_path / "next", "--init-from", str(finished), *more) == 0
    said = capsys.readouterr()
    for branch in ("class_out", "box_out"):
        assert re.search(rf"reinit +head\.{branch}\.weight +other anchors: \[.*\] px there, \[.*\] here", said.out)
    assert "pixels.order: the weights were trained with rgb, here it is bgr" in said.err
    old, new = load_checkpoint(finished), load_checkpoint(tmp_path / "next")
    weights = old.ema or old.model
    assert not torch.equal(new.model["head.box_out.weight"], weights["head.box_out.weight"])
    assert torch.equal(new.model["backbone.layer1.0.conv1.weight"], weights["backbone.layer1.0.conv1.weight"])


def test_a_run_starts_from_the_weights_of_another(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [
        "train.iterations=1",
        "schedule.warmup_iterations=0",
        "optimizer.lr=0.0",
        "head.num_convs=2",
        "train.ema_decay=null",
    ]
    assert train(tmp_path / "next", "--init-from", str(finished), *more) == 0
    out = capsys.readouterr().out
    assert "reinit" in out
    assert "loaded" in out
    start, then = load_checkpoint(finished), load_checkpoint(tmp_path / "next")
    weights = start.ema or start.model
    assert torch.equal(then.model["backbone.layer1.0.conv1.weight"], weights["backbone.layer1.0.conv1.weight"])
    assert then.step == 1


def test_a_diverging_run_stops_with_its_own_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = train(
        tmp_path / "bad", "optimizer.lr=1e35", "train.clip_norm=null", "train.checkpoint_every=1",
        "schedule.warmup_factor=0.0",
    )  # fmt: skip
    assert code == 3
    error = capsys.readouterr().err
    assert "the loss is not finite at step" in error
    assert str(step_path(tmp_path / "bad", 1)) in error
    assert "image ids" in error
    assert load_checkpoint(tmp_path / "bad").step >= 1


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_says_so(tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    command = [
        sys.executable,
        "-m",
        "detkit",
        "train",
        CONFIG,
        *TINY,
        "train.iterations=9999",
        "--output",
        str(run),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, limit = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 4:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.terminate()
    error: Any = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "--resume" in error
    assert load_checkpoint(run, prefer="newest").step == steps(run)[-1]


FEW_STEPS = ["train.iterations=2", "schedule.warmup_iterations=0", "train.checkpoint_every=0"]


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.usefixtures("pictures")
def test_a_console_that_is_gone_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict"))
    assert train(tmp_path / "$x$ \u732b", *FEW_STEPS) == 0
    assert (tmp_path / "$x$ \u732b/result.json").is_file()
    assert (tmp_path / "$x$ \u732b/predictions.png").is_file()


@pytest.mark.usefixtures("pictures")
def test_a_picture_that_fails_costs_no_result_and_a_folder_may_be_text(
    tmp_path: Path, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detkit.train.run import train as train_run

    def fail(*args: Any, **more: Any) -> None:
        raise TypeError("no picture")

    monkeypatch.setattr("detkit.train.summary.picture_grid", fail)
    assert train_run(load_config(CONFIG, [*TINY, *FEW_STEPS]), str(tmp_path / "run")) == 0
    assert (tmp_path / "run/result.json").is_file()
    assert "predictions.png could not be drawn: TypeError: no picture" in (tmp_path / "run/log.txt").read_text()


def test_what_a_person_has_in_the_folder_is_named_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("# my notes\n")
    (tmp_path / "log.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        assert train(tmp_path, *more) == 2
        assert f"--output: detkit did not write {tmp_path}/config.yaml, {tmp_path}/log.txt" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "# my notes\n"
    assert (tmp_path / "log.txt").read_text() == "mine"


def test_a_batch_that_memory_has_no_room_for_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detkit.train.memory.available_bytes", lambda device: 2**20)
    assert train(tmp_path / "run") == 2
    assert re.search(
        r"data\.loader\.batch_size: a step of 2 images of 64x64 pixels needs at least \d+\.\d GiB, 0\.0 GiB are "
        r"available on cpu: take a smaller data\.loader\.batch_size, a larger train\.accumulate",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "run/checkpoints").exists()


def test_an_allocation_that_fails_is_told_with_batch_and_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("detkit.train.trainer.Trainer.train_step", fail)
    assert train(tmp_path / "run") == 2
    assert "memory ran out on cpu with data.loader.batch_size=4, train.accumulate=2: take" in capsys.readouterr().err


def test_a_full_disk_at_the_very_start_has_path_and_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert train(tmp_path / "a/run") == 5
    assert f"{tmp_path}/a/run" in capsys.readouterr().err


def test_the_words_at_the_end_can_be_pasted(tmp_path: Path) -> None:
    from detkit.train.summary import what_next

    text = what_next(tmp_path / "my run", load_config(CONFIG))
    assert f"detkit eval '{tmp_path}/my run'\n" in text
    assert f"--init-from '{tmp_path}/my run' --output '{tmp_path}/my run-longer'\n" in text
    assert f"tensorboard --logdir '{tmp_path}/my run/tensorboard'" in text
