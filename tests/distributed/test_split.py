"""However a step is divided over processes and micro-batches, the same model comes out. Real processes, gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).parent / "_split.py"
CONFIG = Path(__file__).parents[2] / "configs/quickstart/shapes.yaml"
TINY = [
    "data.loader.batch_size=8", "data.loader.num_workers=0", "data.train.dataset.num_images=48",
    "data.train.dataset.size=96", "backbone.depth=18", "neck.channels=16", "neck.norm=gn", "head.num_convs=1",
    "train.ema_decay=null", "schedule.warmup_iterations=1",
    # Sides of 64 to 128 pixels: a batch of two is smaller than the batch of eight that it is a part of.
    "data.train.transforms=[{type: ResizeShortestEdge, short: [64, 96, 128], max_size: 160}]",
]  # fmt: skip


def start(tmp_path: Any, processes: Any, overrides: Any) -> Any:
    """Starts the processes of a run; gives back what rank 0 saves."""
    output = tmp_path / f"{processes}.pt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(WORKER), str(CONFIG), str(output), *TINY, *overrides]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **(shared | {"RANK": str(rank)} if processes > 1 else {"OMP_NUM_THREADS": "1"})},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    said = [process.communicate(timeout=280)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, said
    return torch.load(output, weights_only=True)


def far(a: Any, b: Any) -> Any:
    """The largest difference between the tensors of two state dicts, relative to the tensor's norm."""
    return max(float((a[n] - b[n]).double().norm() / a[n].double().norm().clamp(min=1e-12)) for n in a)


def divided(tmp_path: Any, norm: Any, steps: Any, splits: Any, *more: Any) -> Any:
    base = [f"train.iterations={steps}", f"backbone.norm={norm}", *more]
    whole = start(tmp_path, 1, [*base, "train.accumulate=1"])
    return whole, [start(tmp_path, n, [*base, f"train.accumulate={m}"]) for n, m in splits]


MIXED = (
    "data.train.transforms=[{type: Mosaic, height: 64, width: 64}, {type: RandomCrop, height: 96, width: 96}, "
    "{type: MixUp}, {type: CopyPaste}]"
)


@pytest.mark.parametrize("more", [(), (MIXED,)], ids=["plain", "mixed"])
def test_two_processes_take_the_same_first_step(tmp_path: Path, more: tuple[str, ...]) -> None:
    whole, (two,) = divided(tmp_path, "gn", 1, [(2, 1)], "optimizer={type: SGD, lr: 1.0, momentum: 0.0}", *more)
    # With plain SGD and a rate of 1 the weights' change is the gradient.
    assert torch.allclose(whole["losses"], two["losses"], rtol=1e-6, atol=0)
    assert far(whole["first"], two["first"]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["gn", "frozen_bn", "sync_bn"])
def test_every_split_trains_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str) -> None:
    # In single precision the first step is 1e-7 apart, and training drives any two such runs apart tenfold every few
    # steps: 1e-4 to 1e-2 after 50, by the rate. In double precision what is left is the split itself.
    monkeypatch.setenv("IN_DOUBLE", "1")
    # With sync_bn, micro-batches are normalised by themselves: they are another model.
    splits = [(2, 1), (4, 1)] if norm == "sync_bn" else [(2, 1), (4, 1), (2, 2), (1, 4)]
    # Not AdamW: it divides by the gradient's own size, and so makes much of the last digit of a small one.
    whole, others = divided(tmp_path, norm, 50, splits, "optimizer={type: SGD, lr: 0.005}")
    for (processes, micro), other in zip(splits, others, strict=True):
        first = (whole["losses"][0] - other["losses"][0]).abs() / whole["losses"][0].abs()
        assert first.max() < 1e-6, (processes, micro)
        curve = (whole["losses"][:, 0] - other["losses"][:, 0]).abs() / whole["losses"][:, 0]
        print(f"\n{norm} {processes} processes x {micro}: step 1 {first.max():.1e}, 50 steps {curve.max():.1e}")
        assert curve.max() < 1e-4, (processes, micro)
