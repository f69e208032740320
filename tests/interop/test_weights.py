"""Weights are found however a training script wraps them, and nothing that a file holds is run."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import os
import pathlib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detkit.interop.weights import read_weights
from detkit.utils.pickles import load_torch
from tests.refusals import Refuses

STATE = {
    "backbone.body.conv1.weight": torch.randn(4, 3, 3, 3),
    "backbone.body.bn1.running_mean": torch.randn(4),
    "head.out.weight": torch.randn(2, 4, 1, 1).bfloat16(),
    "head.out.bias": torch.randn(2),
}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def shifted(by: float) -> dict[str, Tensor]:
    return {name: tensor + by for name, tensor in STATE.items()}


class AttributeDict(dict):
    """As Lightning keeps hyper-parameters."""


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    path: pathlib.Path = pathlib.Path("/data")


def equal(found: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert list(found) == list(want)
    for name, tensor in want.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


REFERENCE = {
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.02, "params": [0]}]},
    "lr_scheduler": {"milestones": collections.Counter([16, 22]), "last_epoch": 1},
    "args": argparse.Namespace(
        lr=0.02, path=pathlib.Path("/data"), device=torch.device("cpu"), f=functools.partial(int)
    ),
    "epoch": 1,
    "best": np.float64(0.3),
    "metrics": np.arange(4.0),
    "rng": (np.random.RandomState(0).get_state(), torch.get_rng_state()),
}
"""What torchvision's training script writes beside the model, and more."""
WRAPPED: dict[str, Any] = {
    "plain": STATE,
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "the other way round": prefixed("_orig_mod.module."),
    "compiled inside": {re.sub(r"\.(body|out)", r"._orig_mod.\1", name): tensor for name, tensor in STATE.items()},
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "reference script": {"model": STATE, **REFERENCE},
    "reference script under DDP": {**REFERENCE, "model": prefixed("module.")},
    "Lightning": {
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(1)},
        "hyper_parameters": AttributeDict(lr=0.1, settings=Settings()),
        "callbacks": {"ModelCheckpoint{'monitor': 'mAP'}": {"best_model_score": torch.tensor(0.3)}},
        "loops": {"fit_loop": {"state_dict": {}}},
    },
    "Lightning compiled": {"state_dict": prefixed("model._orig_mod."), "pytorch-lightning_version": "2.5"},
    "Lightning with a name of one's own": {"state_dict": prefixed("detector.net.")},
    "model_state_dict": {"epoch": 3, "model_state_dict": STATE},
    "net": {"net": prefixed("module."), "acc": 1},
    "weights": {"weights": STATE},
    "nested": {"checkpoint": {"state": {"model": prefixed("module.")}}},
    "two state dicts": {
        "backbone": {k.removeprefix("backbone."): v for k, v in STATE.items() if k.startswith("backbone.")},
        "head": {k.removeprefix("head."): v for k, v in STATE.items() if k.startswith("head.")},
    },
    "a tuple": (STATE, {"lr": 0.1}),
    "a list in a namespace-like mapping": AttributeDict(models=[STATE]),
    "an average of its own": {**prefixed("module."), "n_averaged": torch.tensor(7)},
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_a_state_dict_is_found_in_every_wrapping(name: Any, tmp_path: Path) -> None:
    for legacy in (False, True):
        torch.save(WRAPPED[name], tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        equal(read_weights(tmp_path / "x.pth")[0], STATE)


def test_what_was_taken_and_what_was_not_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({**REFERENCE, "model": prefixed("module.")}, path)
    taken, unread = read_weights(path)[1]
    assert taken.startswith(
        "weights taken: `model`; the file holds optimizer, lr_scheduler, args, epoch, best, metrics"
    )
    assert "does not read or run" in unread
    assert "argparse.Namespace" in unread
    torch.save(STATE, path)
    assert read_weights(path)[1] == []


TWO = {"model": STATE, "model_ema": prefixed("module.", shifted(1))}
LIGHTNING = {"state_dict": {**prefixed("model."), **prefixed("ema_model.", shifted(1))}}


@pytest.mark.parametrize(
    ("content", "key", "taken", "note"),
    [
        (TWO, None, 1, "`model_ema` (averaged); also in the file: `model`"),
        (TWO, "model", 0, "`model`; also in the file: `model_ema`"),
        (LIGHTNING, None, 1, "`state_dict.ema_model` (averaged)"),
        (LIGHTNING, "state_dict.model", 0, "`state_dict.model`;"),
        ({"ema": {"shadow": shifted(1)}, "model": STATE}, None, 1, "`ema.shadow` (averaged)"),
        ({"ema": {"shadow": shifted(1)}, "model": STATE}, "ema", 1, "`ema.shadow` (averaged)"),
        ({"best": {"model": shifted(1)}, "model": STATE}, None, 0, "`model`; also in the file: `best.model`"),
        ({"student": STATE, "teacher": shifted(1)}, None, 0, "`student`; also in the file: `teacher`"),
        ({**STATE, **prefixed("teacher.", shifted(1))}, None, 0, "the top level; also in the file: `teacher`"),
        ({"remake": STATE, "schema": shifted(1)}, None, 0, "`remake`; also"),
    ],
)  # fmt: skip
def test_one_of_several_is_taken_by_the_stated_rule(
    content: Any, key: str | None, taken: int, note: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pth")
    found = read_weights(tmp_path / "x.pth", key)
    equal(found[0], shifted(taken))
    assert note in found[1][0]


def test_an_average_of_the_parameters_alone_is_completed_and_that_is_said(tmp_path: Path) -> None:
    ema = {name: tensor for name, tensor in shifted(1).items() if "running" not in name}
    torch.save({"model": STATE, "ema": ema}, tmp_path / "x.pth")
    found = read_weights(tmp_path / "x.pth")
    equal(found[0], {**shifted(1), "backbone.body.bn1.running_mean": STATE["backbone.body.bn1.running_mean"]})
    assert "1 tensors that are missing in `ema` come from `model`: backbone.body.bn1.running_mean" in found[1][1]


def test_a_key_that_is_not_there_names_those_that_are(refuses: Refuses, tmp_path: Path) -> None:
    torch.save({"model": STATE, "model_ema": STATE}, tmp_path / "x.pth")
    with refuses(ValueError):
        read_weights(tmp_path / "x.pth", "modle")


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.ModuleDict({"out": nn.Conv2d(4, 2, 1, bias=False)})


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, lambda m: {"model": m, "epoch": 2}])
def test_a_whole_pickled_model_is_read_without_its_class(wrap: Any, tmp_path: Path) -> None:
    model = Whole()
    want = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # DataParallel moves to a GPU
    torch.save(wrap(model), tmp_path / "x.pth")
    found = read_weights(tmp_path / "x.pth")
    assert set(found[0]) == set(want)
    assert all(torch.equal(found[0][name], want[name]) for name in want)
    assert "test_weights.Whole" in found[1][-1]


class Calls:
    """Its pickle calls a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "make",
    [
        lambda mark: Calls(os.system, f"touch {mark}"),
        lambda mark: Calls(eval, f"open({str(mark)!r}, 'w').close()"),
        lambda mark: Calls(exec, f"open({str(mark)!r}, 'w').close()"),
        lambda mark: Calls(open, str(mark), "w"),
        lambda mark: Calls(pathlib.Path.touch, pathlib.Path(mark)),
        lambda mark: {"deep": [argparse.Namespace(x=Calls(os.system, f"touch {mark}"))]},
        lambda mark: Calls(torch.load, str(mark)),
        lambda mark: Calls(torch.save, {}, str(mark)),
        lambda mark: Calls(np.save, str(mark), np.zeros(1)),
    ],
)
def test_nothing_in_a_file_is_run(make: Any, protocol: int, legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran.npy", tmp_path / "x.pth"
    torch.save(
        {"evil": make(mark), "model": STATE}, path,
        pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy,
    )  # fmt: skip
    for name in ("backbone.body.conv1.weight", "head.out.bias"):
        assert torch.equal(read_weights(path)[0][name], STATE[name])
    assert not mark.exists()


def test_the_planted_programs_do_run_where_a_pickle_is_trusted(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {mark}")))
    assert mark.exists()


def test_a_program_of_torchscript_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    with refuses(ValueError):
        load_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"not a file of torch", b"PK\x03\x04 cut off", pickle.dumps([1] * 3)[:-2]])
def test_garbage_is_refused_by_name(refuses: Refuses, content: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with refuses(ValueError):
        load_torch(tmp_path / "x.pth")


def test_a_file_that_is_cut_short_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    torch.save({"model": STATE, "args": argparse.Namespace()}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    for length in (len(whole) // 3, len(whole) - 40):
        (tmp_path / "x.pth").write_bytes(whole[:length])
        with refuses(ValueError):
            load_torch(tmp_path / "x.pth")


def test_a_tensor_cannot_look_beyond_its_storage(refuses: Refuses, tmp_path: Path) -> None:
    class Beyond:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (torch.ones(2).untyped_storage(), 0, (1000,), (1,), False, None)

    torch.save({"x": argparse.Namespace(), "backbone.a": Beyond(), "head.a": torch.ones(1)}, tmp_path / "x.pth")
    with refuses(ValueError):
        load_torch(tmp_path / "x.pth")


def test_a_file_that_holds_itself_or_grows_without_end_is_no_trap(refuses: Refuses, tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": STATE, "args": argparse.Namespace()}
    content["self"] = content
    torch.save(content, tmp_path / "x.pth")
    equal(read_weights(tmp_path / "x.pth")[0], STATE)
    laughs: list[Any] = [0]
    for _ in range(40):
        laughs = [laughs, laughs]
    torch.save({"model": STATE, "laughs": laughs}, tmp_path / "x.pth")
    with refuses(ValueError):
        read_weights(tmp_path / "x.pth")


def test_a_checkpoint_of_detkit_is_named_as_one(refuses: Refuses, tmp_path: Path) -> None:
    torch.save({"format": 1, "classes": {}, "config": {}, "model": STATE}, tmp_path / "x.pth")
    with refuses(ValueError):
        read_weights(tmp_path / "x.pth")
