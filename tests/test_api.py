"""`import detkit`: one import, every name, and what each function does and refuses."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision

import detkit
from detkit.api import default_folder
from detkit.checkpoint import CheckpointError
from detkit.config import load_config
from detkit.predict.predictor import Predictor
from detkit.train.non_finite import NonFiniteLossError
from detkit.train.run import EvaluationFailedError
from tests.conftest import CONFIG, Folder
from tests.refusals import Refuses

ROOT = Path(__file__).parents[1]
NAMES = {"build", "train", "load", "evaluate", "datasets", "list_parts", "explain", "Run", "Predictor", "Detections",
         "Config"}  # fmt: skip
TINY = {"neck.channels": 16, "head.num_convs": 0, "backbone.depth": 18}


def python(*words: str, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds detkit, with one thread."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=cwd, input=stdin, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("api") / "data")


@pytest.fixture(scope="module")
def run(data: Folder) -> detkit.Run:
    """A run of two steps."""
    return detkit.train(data.config, output=data.root / "run")


def test_importing_detkit_loads_no_library_and_no_room() -> None:
    done = python("-c", "import sys, detkit; print(*sys.modules)")
    libraries = ("detkit", "torch", "torchvision", "numpy", "PIL", "omegaconf", "yaml", "scipy", "tqdm", "matplotlib")
    loaded = [name for name in done.stdout.split() if name.partition(".")[0] in libraries]
    assert sorted(loaded) == ["detkit", "detkit.version"], done.stderr


def test_every_name_is_listed_and_leads_somewhere(refuses: Refuses) -> None:
    assert set(dir(detkit)) >= NAMES
    assert set(dir(detkit)) >= set(detkit.__all__)
    for name in detkit.NAMES:
        assert getattr(detkit, name) is not None
    star: dict[str, Any] = {}
    exec("from detkit import *", star)
    assert star.keys() >= NAMES
    with refuses(AttributeError):
        _ = detkit.trian


def test_the_names_for_type_checkers_are_those_of_the_table() -> None:
    source = Path(detkit.__file__).read_text(encoding="utf-8")
    typed = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    assert {line.rpartition(" ")[2] for line in typed.splitlines()} == set(detkit.NAMES)


@pytest.mark.parametrize(
    "first", [pytest.param("import detkit.train.trainer, detkit.evaluate.coco", marks=pytest.mark.slow), "pass"]
)
def test_packages_with_the_name_of_a_function_are_both(first: str) -> None:
    """Whatever is imported first."""
    code = f"""{first}
import inspect, pickle, detkit
from detkit import api, train
from detkit.train import trainer
import detkit.train.trainer as same
assert callable(detkit.train) and callable(detkit.evaluate) and detkit.train is train and same is trainer
assert inspect.signature(detkit.train) == inspect.signature(api.train)
assert inspect.signature(detkit.evaluate) == inspect.signature(api.evaluate)
assert pickle.loads(pickle.dumps(detkit.train)) is detkit.train
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_train_gives_the_run(run: detkit.Run, data: Folder) -> None:
    assert isinstance(run, detkit.Run)
    assert run.folder == data.root / "run"
    result = run.result
    assert (result.ap, result.ap50, result.step) == (result["ap"], result["ap50"], 2)
    assert result == json.loads((run.folder / "result.json").read_text())
    assert [entry["step"] for entry in run.metrics()] == [1, 2]
    assert run.plot() == run.folder / "curves.png"
    assert run.checkpoint("best").step == run.checkpoint("last").step == 2
    assert isinstance(run.predictor(), detkit.Predictor)


def test_a_checkpoint_goes_by_best_last_or_its_step(run: detkit.Run) -> None:
    """Anything else is no checkpoint: least of all the newest one."""
    assert run.checkpoint(2).step == run.checkpoint(cast("int", np.int64(2))).step == 2
    with pytest.raises(ValueError, match="'newest' is no checkpoint: best, last, or the number of a step"):
        run.checkpoint(cast("Any", "newest"))
    with pytest.raises(CheckpointError):
        run.checkpoint(cast("int", np.int64(7)))


def test_an_empty_output_is_no_folder(data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable that was never set gives it: nothing is written into the present folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="output: '' names no folder"):
        detkit.train(data.config, output="")
    assert list(tmp_path.iterdir()) == []


def test_training_leaves_the_process_as_it_was(data: Folder, tmp_path: Path) -> None:
    """The seed, the kernels and the number of threads of a notebook are its own."""
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    settings = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    detkit.train(data.config, output=tmp_path / "run", overrides={"train.iterations": 1})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert settings == (
        torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    )  # fmt: skip
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers


@contextlib.contextmanager
def default_interrupt() -> Iterator[None]:
    """Ctrl-C as Python handles it; a suite that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_train_resumes_and_an_interrupt_is_the_callers(
    data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detkit.train.trainer import Trainer

    step = Trainer.train_step

    def interrupted(trainer: Trainer) -> Any:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if trainer.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(trainer)

    whole = detkit.train(data.config, output=tmp_path / "whole")
    with monkeypatch.context() as patch, default_interrupt():
        patch.setattr(Trainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            detkit.train(data.config, output=tmp_path / "run")
    resumed = detkit.train(data.config, output=tmp_path / "run", resume=True)
    weights, expected = resumed.checkpoint("last").model, whole.checkpoint("last").model
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_train_raises_what_went_wrong(
    refuses: Refuses, data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NonFiniteLossError, match="the loss is not finite at step"):
        detkit.train(data.config, output="a", overrides={"optimizer.lr": 1e30, "train.iterations": 3})
    broken = shutil.copytree(data.root, tmp_path / "broken")
    (broken / "val/val0.jpg").write_bytes((broken / "val/val0.jpg").read_bytes()[:-20])
    skipped = {"data.images.bad_images": "error", "train.iterations": 1}
    monkeypatch.setattr("detkit.data.build.SECONDS", {"train": 0.0, "val": 0.0})
    with pytest.raises(EvaluationFailedError, match=r"val0\.jpg"):
        detkit.train(broken / "config.yaml", output="b", overrides=skipped)
    with refuses(ValueError):
        _ = detkit.Run("b").result.ap50
    for more in ({"overwrite": True}, {"init_from": "x"}):
        with refuses(ValueError):
            detkit.train(data.config, output="b", resume=True, **more)
    with refuses(ValueError):
        detkit.train(data.config, allow=["code"])
    with refuses(ValueError):
        detkit.train({"_base_": str(data.config)})
    with refuses(ValueError):
        detkit.train(ROOT / "configs/base/retinanet.yaml")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29400")
    with refuses(ValueError):
        detkit.train(data.config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "broken"]


def test_the_run_folder_has_the_name_that_the_command_would_give(data: Folder) -> None:
    assert default_folder(data.config, []) == Path("runs/data")
    assert default_folder("quickstart", ["bce"]) == Path("runs/quickstart-bce")


def test_build_takes_every_kind_of_config_and_needs_no_data(refuses: Refuses, tmp_path: Path) -> None:
    base = ROOT / "configs/base/retinanet.yaml"
    config = load_config(base)
    built = [
        detkit.build(source, num_classes=3, overrides=TINY)
        for source in (base, str(base), config, config.to_dict(), {"_base_": str(base)})
    ]
    assert {type(model) for model in built} == {detkit.DenseDetector}
    assert built[0].training
    assert built[0].num_classes == 3
    assert built[0].config.neck.channels == 16
    assert (
        len(detkit.build(CONFIG, overrides={"data.train.dataset.num_images": 2, **TINY}).class_loss.state_dict()) == 0
    )
    with refuses(ValueError):
        detkit.build(base, overrides=TINY)
    with refuses(ValueError):
        detkit.build(base, num_classes=0, overrides=TINY)
    with refuses((ValueError, FileNotFoundError)):
        detkit.build(base, num_classes=1, overrides=TINY, backbone_weights=tmp_path / "none.pt")
    for count in (True, 2.5, "3"):
        with pytest.raises(ValueError, match=r"num_classes: .* must be a whole number"):
            detkit.build(base, num_classes=cast("Any", count), overrides=TINY)
    with pytest.raises(ValueError, match=r"overrides must be a list, .*, not None"):
        detkit.build(base, num_classes=1, overrides=cast("Any", None))


def test_backbone_weights_replace_those_of_the_config(tmp_path: Path) -> None:
    donor = torchvision.models.resnet18()
    torch.save(donor.state_dict(), tmp_path / "backbone.pt")
    built = [
        detkit.build(CONFIG, num_classes=1, overrides=TINY, backbone_weights=tmp_path / "backbone.pt"),
        detkit.build(CONFIG, num_classes=1, overrides={**TINY, "backbone.weights": tmp_path / "backbone.pt"}),
        detkit.build(
            CONFIG, num_classes=1, overrides={**TINY, "backbone.weights": tmp_path / "gone.pt"}, backbone_weights=False
        ),
    ]
    same = [torch.equal(next(model.backbone.parameters()), donor.conv1.weight) for model in built]
    assert same == [True, True, False]


def test_a_detector_keeps_its_config_through_copies_and_files(tmp_path: Path) -> None:
    model = detkit.build(CONFIG, num_classes=1, overrides=TINY)
    assert copy.deepcopy(model).config is model.config
    loaded = pickle.loads(pickle.dumps(model))
    assert (loaded.config, loaded.num_classes) == (model.config, 1)


def test_evaluate_takes_models_of_every_kind_and_data_of_every_kind(run: detkit.Run, data: Folder) -> None:
    dataset = detkit.datasets.load(data.root / "val.json")
    model = run.predictor().detector
    results = [
        detkit.evaluate(given, where)
        for given, where in (
            (run, None), (run, "val"), (run.folder, data.root / "val.json"), (str(run.folder), dataset),
            (run.predictor(), dataset), (model, dataset), (model, None),
        )
    ]  # fmt: skip
    assert {r.ap for r in results} == {run.result.ap}
    assert {r.ap50 for r in results} == {run.result.ap50}
    assert detkit.evaluate(run, "train").num_images == 3
    assert dataset.classes.names == ("cat",)


def test_evaluate_matches_classes_by_name_and_leaves_the_data_set(run: detkit.Run, data: Folder) -> None:
    content = json.loads((data.root / "val.json").read_text())
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (data.root / "two.json").write_text(json.dumps(content))
    dataset = detkit.datasets.load(data.root / "two.json", images=data.root / "val")
    assert list(detkit.evaluate(run, dataset).per_class) == ["cat"]
    assert dataset.classes.names == ("cat", "dog")


def test_evaluate_writes_a_report(run: detkit.Run, tmp_path: Path) -> None:
    result = detkit.evaluate(
        run, report=tmp_path / "new" / "report", slices=["width"], overrides={"evaluator.voc": True}
    )
    text = (tmp_path / "new" / "report" / "report.md").read_text(encoding="utf-8")
    assert "VOC12" in text
    assert "## By width" in text
    assert f"| cat | 3 | {100 * result.per_class['cat']['ap']:.1f} |" in text
    with pytest.raises(ValueError, match="slices: they are part of the report"):
        detkit.evaluate(run, slices=["width"])


def test_evaluate_refuses_what_it_would_measure_wrongly(refuses: Refuses, run: detkit.Run, data: Folder) -> None:
    model = detkit.build(CONFIG, num_classes=3, overrides=TINY)
    with refuses(ValueError):
        detkit.evaluate(model, data.root / "val.json")
    with refuses(ValueError):
        detkit.evaluate(run.predictor(), overrides={"nms.iou_threshold": 0.9})
    with refuses(FileNotFoundError):
        detkit.evaluate(run, "test")
    detkit.evaluate(run.predictor(), overrides={"data.loader.batch_size": 1, "evaluator.max_detections": [1, 2, 3]})


def test_load_is_a_predictor_with_settings(run: detkit.Run, data: Folder) -> None:
    predict = detkit.load(run.folder, overrides={"postprocess.score_threshold": 0.0}, batch_size=2)
    assert isinstance(predict, Predictor)
    assert predict.config.postprocess.score_threshold == 0.0
    (found,) = predict(data.file("val", 0))
    assert isinstance(found, detkit.Detections)
    assert set(found.names) == {"cat"}


def test_parts_are_listed_and_explained() -> None:
    assert "ResNet" in detkit.list_parts("backbones")
    assert "gamma" in str(detkit.explain("SigmoidFocalLoss"))


def test_a_users_script_that_uses_all_of_it_runs(data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("supervision")
    from tests.typing import user_script

    run = user_script.build_and_train(str(data.config), tmp_path / "run")
    assert set(user_script.predict(run.predictor(), data.file("val", 0))) <= {"cat"}
    assert set(user_script.evaluate(run, data.root / "val.json")) == {"cat"}
    assert user_script.own_loop(str(data.config), data.root / "train.json") == 2
    assert user_script.configs(str(CONFIG)).neck.channels == 32
    assert "ResNet" in user_script.look_up()


@pytest.mark.slow
def test_a_users_script_passes_mypy_strict(tmp_path: Path) -> None:
    """Without this project's mypy settings; a wrong use of the names is found."""
    script = tmp_path / "user_script.py"
    text = (ROOT / "tests/typing/user_script.py").read_text(encoding="utf-8")
    script.write_text(text, encoding="utf-8")
    words = ("-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", str(script))
    done = python(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    wrong = text.replace("found.names", "found.name").replace("detkit.list_parts", "detkit.list_part")
    script.write_text(wrong.replace("num_classes=len(dataset.classes)", 'num_classes="3"'), encoding="utf-8")
    done = python(*words, cwd=tmp_path)
    for error in ('no attribute "name"', 'incompatible type "str"', 'no attribute "list_part"'):
        assert error in done.stdout, done.stdout


SCRIPT = """
import multiprocessing
multiprocessing.set_start_method("spawn")
import detkit
run = detkit.train({config!r}, output="run", overrides={{"data.loader.num_workers": 1, "train.iterations": 1}})
print("steps:", run.result.step)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "command", "pipe"])
def test_no_main_guard_is_needed_with_loader_processes_that_are_no_forks(
    data: Folder, tmp_path: Path, way: str
) -> None:
    script = SCRIPT.format(config=str(data.config))
    (tmp_path / "script.py").write_text(script)
    words = {"file": ["script.py"], "command": ["-c", script], "pipe": ["-"]}[way]
    done = python(*words, cwd=tmp_path, stdin=script if way == "pipe" else None)
    assert done.stdout.rstrip().endswith("steps: 1"), done.stdout + done.stderr


def test_signatures_are_shown_where_a_notebook_looks() -> None:
    assert list(inspect.signature(detkit.train).parameters)[:3] == ["config", "output", "overrides"]
