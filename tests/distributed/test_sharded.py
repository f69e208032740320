"""`train.parallel: fsdp`: the model of one process, in parts; the same checkpoint. Two real processes, gloo."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detkit.checkpoint import step_path
from detkit.config import load_config
from detkit.train.options import TrainOptions
from detkit.train.sharded import count, count_calls, full_state, is_sharded, units, unsharded
from detkit.train.torch_setup import set_deterministic
from tests.distributed import _sharded
from tests.refusals import Refuses

WORKER = Path(__file__).parent / "_sharded.py"
ROOT = Path(__file__).parents[2]
TINY = [
    "data.loader.batch_size=4", "data.loader.num_workers=0", "data.train.dataset.num_images=16",
    "data.train.dataset.size=64", "backbone.depth=18", "neck.channels=16", "neck.norm=gn",
    "head.num_convs=1", "train.ema_decay=0.9", "schedule.warmup_iterations=1", "train.iterations=3",
    "train.checkpoint_every=2", "train.clip_norm=0.5", "train.threads=1", "train.parallel=fsdp",
]  # fmt: skip


def start(folder: Any, overrides: Any, processes: int = 2) -> Any:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rendezvous = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environ = {**os.environ, **rendezvous, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), *overrides], cwd=ROOT,
            env={**environ, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    said = [process.communicate(timeout=280)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]


def compare(a: Any, b: Any, check: Any, name: str = "") -> None:
    """Calls `check(name, x, y)` for every pair of tensors of two states of equal structure."""
    if isinstance(a, dict):
        assert list(a) == list(b), name
        for key in a:
            compare(a[key], b[key], check, f"{name}.{key}")
    elif isinstance(a, torch.Tensor):
        assert (type(a), a.shape, a.dtype) == (type(b), b.shape, b.dtype), name
        check(name, a, b)


def is_close(name: Any, x: Any, y: Any) -> None:
    assert (x - y).double().norm() <= 1e-5 * x.double().norm() + 1e-12, name


def is_same(name: Any, x: Any, y: Any) -> None:
    assert torch.equal(x, y), name


@pytest.fixture
def one_thread() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    set_deterministic(True)
    yield
    torch.set_num_threads(threads)
    set_deterministic(False)


@pytest.mark.parametrize(
    ("norm", "optimizer", "accumulate"),
    [("gn", "SGD", 1), pytest.param("sync_bn", "AdamW", 2, marks=pytest.mark.slow)],
)
def test_two_processes_train_the_model_of_one(
    tmp_path: Path, one_thread: Any, norm: str, optimizer: str, accumulate: int
) -> None:
    ours = [*TINY, f"backbone.norm={norm}", f"optimizer={{type: {optimizer}, lr: 0.001}}"]
    first, second = start(tmp_path / "two", [*ours, f"train.accumulate={accumulate}"])
    config = load_config(ROOT / "configs/quickstart/shapes.yaml", ours)
    trainer, one = _sharded.train(config, tmp_path / "one")
    # Adam's root, and a variance over the few numbers of a small image, magnify what rounding does.
    compare(one, first["end"], is_close if norm == "gn" else lambda *_: None)
    compare(first["end"], second["end"], is_same)
    # To save, to load and to go on changes no bit.
    compare(first["end"], first["resumed"], is_same)
    # Each process has its half, some rounded up, of the weights and of the optimizer's state.
    for part in (first, second):
        assert 0.45 * count(trainer.detector) < part["numbers"][0] < 0.55 * count(trainer.detector)
        assert part["numbers"][1] == part["numbers"][0] * (2 if optimizer == "AdamW" else 1)
    # The file is that of one process, which goes on from it.
    saved = step_path(tmp_path / "two/rank0", 2)
    assert not (tmp_path / "two/rank1").exists()
    compare(_sharded.train(config, tmp_path / "third", saved)[1], one, is_close if norm == "gn" else lambda *_: None)
    # While gathered, a process may call the model alone, and as often as it likes.
    assert len(first["alone"]) == 0
    trainer.ema.module.load_state_dict(first["end"]["ema"])
    with torch.inference_mode():
        torch.testing.assert_close(second["alone"][1], trainer.model(_sharded.IMAGES).logits)
    assert first["after"] == second["after"]
    assert 0 < first["after"] < 10


class Branches(nn.Module):
    """A model whose backbone has a large part with a large and a small child, and one that is called twice."""

    class pixels:
        mean = (0.0, 0.0, 0.0)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.large = nn.Sequential(nn.Conv2d(8, 32, 3), nn.Conv2d(32, 8, 3), nn.Conv2d(8, 8, 3))
        self.twice = nn.Conv2d(8, 8, 1)
        self.never = nn.Conv2d(8, 8, 1)

    def forward(self, images: Any, sizes: Any) -> Any:
        x = self.large(self.stem(images.float()))
        return self.twice(self.twice(x))


def test_units_are_the_largest_modules_that_are_small_enough_and_called_once() -> None:
    model: Any = Branches()
    model.large.eval()
    calls = count_calls(model, torch.device("cpu"))
    assert calls[model.twice] == 2
    assert calls[model.never] == 0
    assert model.training
    assert not model.large.training
    # The large convolutions hold over a quarter each: no smaller module is in them, so they stay whole.
    assert units(model, calls) == [model.stem, *model.large]


def test_a_model_that_is_not_divided_is_left_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert not is_sharded(model)
    with unsharded(model):
        assert type(model) is nn.Linear
    state = model.state_dict()
    assert all(value is state[name] for name, value in full_state(state).items())


@pytest.mark.parametrize("other", [{"precision": "fp16"}, {"compile": True}])
def test_what_does_not_go_with_it_is_refused(refuses: Refuses, other: dict[str, Any]) -> None:
    with refuses(ValueError):
        TrainOptions(iterations=1, parallel="fsdp", **other)
