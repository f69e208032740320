"""A model written for others, and read back: the same detections, and a clear word for every kind of damage."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torchvision import models

from detkit.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from detkit.cli import main
from detkit.config import Config, load_config
from detkit.detectors.build import build_detector
from detkit.hub import names
from detkit.interop import load_any
from detkit.interop.exported import read_exported
from detkit.predict.predictor import Predictor
from detkit.runs.export import Model, export
from detkit.structures import ClassMap
from tests.conftest import Folder
from tests.refusals import Refuses
from tests.web import Web

CLASSES = ClassMap(("cat", "a|b <dog>"), (3, 7))


OVERRIDES = ["postprocess.score_threshold=0.005", "backbone.out_features=[c3]"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A small detector that finds something, with averaged weights that differ from the others."""
    folder = Folder(tmp_path_factory.mktemp("saved") / "data")
    config = load_config(folder.config, [*OVERRIDES, "imports=[json]"])
    torch.manual_seed(0)
    first, second = (build_detector(config, 2).state_dict() for _ in range(2))
    path = save_checkpoint(
        folder.root / "run.pt",
        Checkpoint(step=7, seed=0, model=first, ema=second, config=config.to_dict(), classes=CLASSES),
    )
    return load_any(path)


@pytest.fixture
def exported(saved: Checkpoint, tmp_path: Path) -> Path:
    figures = {"step": 7, "ap": 0.25, "ap50": 0.5, "ap75": None, "per_class": {"cat": {"ap": 0.25, "ap50": None}}}
    return export(Model(saved, figures, f"{Path.home()}/bin/detkit train x.yaml"), tmp_path / "exported")


def detections(source: Any) -> list[torch.Tensor]:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 64, 3)).astype(np.uint8)
    (found,) = Predictor.from_checkpoint(source, device="cpu")(pixels)
    assert len(found.boxes)
    return [found.boxes, found.scores, found.labels]


def test_the_detections_are_the_same_bit_for_bit(saved: Checkpoint, exported: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(exported / "model.safetensors", alone)
    assert load_any(exported / "model.safetensors").path == exported / "model.safetensors"
    expected = detections(saved.path)
    for source in (str(exported), alone):
        assert all(map(torch.equal, detections(source), expected))
    again = load_any(alone)
    assert (again.step, again.classes) == (7, CLASSES)


def test_what_is_written_and_nothing_of_this_machine(saved: Checkpoint, exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        ".detkit.json", "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    content = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert (content["library_name"], content["needs"]) == ("detkit", ["json"])
    assert content["config"]["data"]["val"]["dataset"]["annotations"] == "val.json"
    assert "imports" not in content["config"]
    for name in ("config.json", "README.md", "model.safetensors"):
        assert str(saved.path and saved.path.parent).encode() not in (exported / name).read_bytes()
    weights = load_file(exported / "model.safetensors")
    assert saved.ema is not None
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.ema.items())


def test_the_card_is_valid_for_the_hub(exported: Path) -> None:
    card = ModelCard((exported / "README.md").read_text(encoding="utf-8"))
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("detkit", "object-detection", "exported")
    assert {(r.metric_type, r.metric_value, r.dataset_name) for r in data.eval_results} == {
        ("ap", 0.25, "val"), ("ap50", 0.5, "val"),
    }  # fmt: skip
    assert "| all classes | 0.250 | 0.500 |" in card.text
    assert "| `cat` | 0.250 | n/a |" in card.text
    assert "`a b  dog`" in card.text
    assert "detkit train x.yaml" in card.text
    assert str(Path.home()) not in card.text


def test_a_model_without_figures_has_a_card_without_them(saved: Checkpoint, tmp_path: Path) -> None:
    text = (export(Model(saved), tmp_path / "x") / "README.md").read_text(encoding="utf-8")
    assert "model-index" not in text
    assert "## Results" not in text


def test_files_that_detkit_did_not_write_stay(saved: Checkpoint, tmp_path: Path, refuses: Refuses) -> None:
    folder = export(Model(saved), tmp_path / "x")
    export(Model(saved), folder)
    (folder / "README.md").write_text("mine")
    with refuses(ValueError):
        export(Model(saved), folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "mine"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/environment.json").touch()
    with refuses(ValueError):
        export(Model(saved), tmp_path / "run")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_damaged_weights(exported: Path, refuses: Refuses) -> None:
    weights = exported / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"<html>" * 10, b"\xff" * 8 + whole[8:]):
        weights.write_bytes(damaged)
        with refuses(ValueError, hide="(?<=safetensors file: ).*"):
            read_exported(exported)


def test_weights_of_another_model(exported: Path, refuses: Refuses) -> None:
    save_file({"a": torch.zeros(1)}, exported / "model.safetensors")
    with refuses(ValueError, hide="(?<=DenseDetector:)(.|\n)*"):
        Predictor.from_checkpoint(exported, device="cpu")
    (exported / "config.json").unlink()
    with refuses(ValueError):
        load_any(exported / "model.safetensors")


def test_a_damaged_config(exported: Path, refuses: Refuses) -> None:
    config, whole = exported / "config.json", (exported / "config.json").read_bytes()
    config.write_bytes(whole[:50])
    with refuses(ValueError):
        load_any(exported)
    config.write_text("[]")
    with refuses(ValueError):
        load_any(exported)
    changes: list[Callable[[Any], None]] = [
        lambda c: c.update(format=9),
        lambda c: c.update(classes={"names": ["a"], "ids": []}),
        lambda c: c["config"]["backbone"].update(depth=19),
        lambda c: c["config"].update(schedule={"type": "MySchedule"}, imports=["antigravity"]),
    ]
    for change in changes:
        config.write_bytes(whole)
        edit(config, change)
        with refuses(ValueError, hide=r"Imported: [^;]*"):  # other tests' plugins are among them
            Predictor.from_checkpoint(exported, device="cpu")
    assert "antigravity" not in sys.modules


def test_every_kind_of_source(saved: Checkpoint, exported: Path, web: Web) -> None:
    assert saved.path is not None
    web.files["/run.pt"] = saved.path.read_bytes()
    web.files["/m.safetensors"] = (exported / "model.safetensors").read_bytes()
    assert saved.ema is not None
    for name in ("run.pt", "m.safetensors"):
        found = load_any(f"{web.url}/{name}")
        weights = found.ema or found.model
        assert all(torch.equal(weights[key], tensor) for key, tensor in saved.ema.items())
    web.files["/cut.pt"] = web.files["/run.pt"][:-9]
    with pytest.raises(CheckpointError, match="not a complete detkit checkpoint"):
        load_any(f"{web.url}/cut.pt")


def test_published_weights_by_name(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refuses: Refuses) -> None:
    model = models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    web.files["/m.pth"] = (tmp_path / "m.pth").read_bytes()
    monkeypatch.setattr(names, "torchvision_source", lambda _: names.Published(f"{web.url}/m.pth"))
    found = load_any("torchvision:ssdlite320_mobilenet_v3_large")
    assert (len(found.classes), found.step, found.config["backbone"]["type"]) == (80, 0, "MobileNetV3")
    for wrong in ("torchvision:fasterrcnn_resnet50_fpn", "detectron2:COCO-Detection/faster_rcnn_R_50_FPN_1x"):
        with refuses(ValueError):
            load_any(wrong)
    assert len(web.requests) == 1


def test_init_from_keeps_what_fits(
    folder: Folder, exported: Path, web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Other classes: backbone, neck and box branch are kept, of the class branch the columns of a namesake."""
    from detkit.train.assemble import initial_detector

    web.files["/m.safetensors"] = (exported / "model.safetensors").read_bytes()
    config = load_config(folder.config, OVERRIDES)
    new = ClassMap(("bird", "cat", "fish"), (1, 2, 3))
    with caplog.at_level(logging.INFO, logger="detkit"):
        detector = initial_detector(config, new, f"{web.url}/m.safetensors", pretrained=True)
    state, weights = detector.state_dict(), load_file(exported / "model.safetensors")
    for name, tensor in state.items():
        if "class_out" not in name:
            assert torch.equal(tensor, weights[name]), name
    columns = (
        state["head.class_out.weight"].unflatten(0, (-1, 3)),
        weights["head.class_out.weight"].unflatten(0, (-1, 2)),
    )
    assert torch.equal(columns[0][:, 1], columns[1][:, 0])
    assert "1 of 3 classes have a namesake" in caplog.text


def test_push_to_a_folder_from_the_command_line(
    saved: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(saved.path), "--to", str(tmp_path / "x")]) == 0
    assert "model.safetensors, config.json, README.md" in capsys.readouterr().out
    for words in (
        ["push", str(saved.path)],
        ["push", str(saved.path), "hf://a/b", "--to", str(tmp_path / "y")],
        ["push", str(saved.path), "--to", str(tmp_path / "y"), "--private"],
        ["push", str(saved.path), "a/b"],
        ["push", str(saved.path), "hf://datasets/a/b"],
    ):
        assert main(words) == 2
    assert not (tmp_path / "y").exists()


def test_convert_and_push_do_not_import_torch_for_their_help() -> None:
    code = (
        "import sys, argparse\nfrom detkit.runs import cli\ncli.add_arguments(argparse.ArgumentParser())\n"
        "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_config_of_a_checkpoint_is_not_changed(saved: Checkpoint, tmp_path: Path) -> None:
    before = Config.from_dict(saved.config).hash()
    export(Model(saved), tmp_path / "x")
    assert Config.from_dict(saved.config).hash() == before
