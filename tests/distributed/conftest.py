"""A detector that trains in no time, run as users run it, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = """
import json, os, time
from torch import nn
from detkit.backbones.base import Backbone
from detkit.data.datasets.shapes import ShapesDataset
from detkit.registry import BACKBONES, DATASETS
from detkit.structures import FeatureShape

@BACKBONES.register()
class TinyNet(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, stride=8, padding=4)
        self.out_shapes = {"c3": FeatureShape(8, 8)}

    def forward(self, images):
        return {"c3": self.conv(images).tanh()}

@DATASETS.register()
class SlowShapes(ShapesDataset):
    '''Every image takes `seconds`; the file `sleep` names a rank that sleeps for ever.'''
    def __init__(self, *, num_images: int, size: int, seconds: float = 0.0, sleep: str = "") -> None:
        super().__init__(num_images=num_images, size=size)
        self.seconds, self.sleep = seconds, sleep

    def load_image(self, index):
        time.sleep(self.seconds)
        while self.sleep and os.path.exists(self.sleep) and open(self.sleep).read() == os.environ.get("RANK"):
            time.sleep(1)
        return super().load_image(index)
"""
OPTIONS = [
    "data.loader.batch_size=4", "data.loader.num_workers=0", "data.val.dataset.num_images=5",
    "data.val.dataset.size=64", "train.threads=1", "train.device=cpu", "train.tensorboard=false",
    "train.iterations=40", "train.checkpoint_every=5", "train.eval_every=20", "train.log_every=10",
    "train.keep_last=3", "schedule.warmup_iterations=3",
]  # fmt: skip
CLOCKS = {"time/step", "time/data", "time/train", "memory/peak_mb", "val/seconds"}


class Tiny:
    """Starts runs of the tiny detector and looks into their folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.py").write_text(PLUGIN)
        config = f"""
_base_: {ROOT}/configs/quickstart/shapes.yaml
imports: [{folder}/tiny.py]
backbone: {{type: TinyNet}}
neck: {{type: FPN, channels: 16, extra_levels: 1, norm: gn}}
head: {{type: SharedTowerHead, num_convs: 1, norm: gn}}
data:
  train:
    dataset: {{type: SlowShapes, num_images: 24, size: 64, seconds: 0.005, sleep: {folder}/sleep}}
"""
        (folder / "tiny.yaml").write_text(config)

    def command(self, run: str, *more: str) -> list[str]:
        """`detkit train` of the tiny detector into the run folder `run`."""
        output = str(self.folder / run)
        return [
            sys.executable,
            "-m",
            "detkit.cli",
            "train",
            f"{self.folder}/tiny.yaml",
            *OPTIONS,
            "--output",
            output,
            *more,
        ]

    def start(self, run: str, *more: str, before: tuple[str, ...] = (), **environ: str) -> subprocess.Popen[str]:
        """A run in the background. before: words in front of the command."""
        return subprocess.Popen(
            [*before, *self.command(run, *more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={k: v for k, v in os.environ.items() if k != "RANK"} | {"OMP_NUM_THREADS": "1"} | environ,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], code: int = 0, seconds: float = 120) -> tuple[str, str]:
        """Waits for the end; gives back what it wrote."""
        out, error = process.communicate(timeout=seconds)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{error}"
        return out, error

    def wait_for_step(self, run: str, step: int, process: subprocess.Popen[str], seconds: float = 90) -> None:
        """Until the run has done a step."""
        path, limit = self.folder / run / "metrics.jsonl", time.monotonic() + seconds
        while not path.exists() or path.read_text().count('"train/loss"') < step:
            if process.poll() is not None or time.monotonic() > limit:
                process.kill()
                raise AssertionError(f"never came to step {step}: {process.communicate()}")
            time.sleep(0.005)

    def workers(self, process: subprocess.Popen[str]) -> dict[int, int]:
        """Rank -> process id of the training processes that a launcher has started."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                environ = (stat.parent / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            ranks = [int(entry[5:]) for entry in environ if entry.startswith(b"RANK=")]
            if parent == process.pid and ranks:
                found[ranks[0]] = int(stat.parent.name)
        return found

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl, without what clocks measured."""
        lines = map(json.loads, (self.folder / run / "metrics.jsonl").read_text().splitlines())
        return [without_clocks(line) for line in lines]

    def assert_same(self, first: str, second: str, tolerance: float = 0.0) -> None:
        """Two finished runs have the same weights, optimizer and metrics: bit for bit, or within a tolerance."""
        import torch

        from detkit.checkpoint import load_checkpoint

        a, b = (load_checkpoint(self.folder / run, prefer="newest") for run in (first, second))
        assert a.step == b.step
        assert a.images_seen == b.images_seen
        for name in ("model", "ema"):
            want, have = getattr(a, name), getattr(b, name)
            assert want.keys() == have.keys()
            for key, value in want.items():
                if tolerance:
                    assert torch.allclose(value, have[key], rtol=tolerance, atol=tolerance), key
                else:
                    assert torch.equal(value, have[key]), key
        want, have = self.metrics(first), self.metrics(second)
        assert [m["step"] for m in want] == [m["step"] for m in have]
        if not tolerance:
            assert want == have
            assert torch.equal(flat(a.optimizer), flat(b.optimizer))
            return
        for x, y in zip(want, have, strict=True):
            if "train/loss" in x:
                assert x["train/loss"] == pytest.approx(y["train/loss"], rel=tolerance)


def without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in CLOCKS}


def flat(state: Any) -> Any:
    import torch

    if isinstance(state, dict):
        parts = [flat(value) for _, value in sorted(state.items(), key=lambda item: str(item[0]))]
    elif isinstance(state, (list, tuple)):
        parts = [flat(value) for value in state]
    elif torch.is_tensor(state):
        return state.flatten().double()
    else:
        return torch.zeros(0, dtype=torch.float64)
    return torch.cat([torch.zeros(0, dtype=torch.float64), *parts])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One folder for all runs of the session."""
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def whole(tiny: Tiny) -> str:
    """A run of two processes that nothing disturbed."""
    tiny.finish(tiny.start("whole", "--procs", "2"))
    return "whole"
