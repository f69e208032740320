"""`detkit bench` of a config and of a checkpoint: its table, its JSON, its errors, and a further way to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.bench import runners
from detkit.bench.runners import Runner, compiled, eager
from detkit.checkpoint import Checkpoint, save_checkpoint
from detkit.cli import main
from detkit.config import load_config
from detkit.data.datasets.shapes import ShapesDataset
from detkit.detectors.build import build_detector
from detkit.predict.predictor import Predictor
from tests.conftest import CONFIG

TINY = ["neck.channels=8", "head.num_convs=1", "data.train.dataset.num_images=1"]
QUICK = ["--device", "cpu", "--size", "96x64", "--steps", "2", "--warmup", "0"]


def bench(*words: object) -> int:
    return main(["bench", str(CONFIG), *TINY, *QUICK, *map(str, words)])


def test_the_table_and_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assert bench("--how", "eager", "--batch", 2, "--json", file) == 0
    out = capsys.readouterr().out
    content = json.loads(file.read_text())
    (run,) = content["runs"]
    assert list(run["stages"]) == ["read", "resize", "network", "postprocess"]
    for figures in (*run["stages"].values(), run["total"]):
        assert 0 < figures["low"] <= figures["median"] <= figures["high"]
    assert run["images_per_second"] == pytest.approx(2000 / run["total"]["median"], abs=0.01)
    assert run["peak_memory_mb"] > 50
    assert content["input"]["batch"] == 2
    assert (content["input"]["width"], content["input"]["height"]) == (96, 64)
    assert out.startswith("machine: ")
    assert f"torch {torch.__version__}" in out.splitlines()[0]
    assert "2 images of 96x64, padded to " in out
    total = content["counts"]["total"]
    assert f"{total['parameters']:,}" in out
    assert "not counted: " in out


def test_a_checkpoint_without_counts_on_a_given_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    config = load_config(CONFIG, TINY)
    classes = ShapesDataset(num_images=1, split="val").classes
    model = build_detector(config, len(classes)).state_dict()
    saved = Checkpoint(step=1, seed=0, model=model, config=config.to_dict(), classes=classes)
    file = save_checkpoint(tmp_path / "a.pt", saved)
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    words = ["bench", str(file), *QUICK, "--how", "eager", "--no-counts", "--image", str(tmp_path / "a.png")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 image of 50x40" in out
    assert "parameters" not in out


def test_one_more_way_to_run_is_one_more_entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such format")

    def whole(predictor: Predictor, images: Any, sizes: Any) -> Any:
        return (lambda batch, _: batch.float().mean()), (lambda raw, _: raw)  # its graph suppresses, and gives tensors

    added = [Runner("onnx", whole), Runner("broken", broken), Runner("absent", eager, lambda: "pip install absent")]
    monkeypatch.setattr(runners, "RUNNERS", [Runner("eager", eager), *added])
    assert bench("--no-counts") == 0  # what was not asked for may fail
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[4:6]] == ["eager", "onnx"]
    assert "broken: could not run: no such format" in out
    assert "absent" not in out
    assert bench("--no-counts", "--how", "broken,eager") == 1
    capsys.readouterr()
    assert bench("--how", "absent") == 2
    assert "--how: absent: pip install absent" in capsys.readouterr().err


def test_the_compiled_network_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda module: made.append(module) or module)
    detector = build_detector(load_config(CONFIG, TINY), 3).eval()
    images, sizes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]])
    network, _ = compiled(Predictor(detector), images, sizes)
    assert made == [detector]
    assert network(images, sizes).logits.shape[0] == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--size", "640"], "--size: '640' must be a width and a height"),
        (["--size", "0x4"], "--size: '0x4'"),
        (["--steps", "0"], "--steps: 0 must be at least 1"),
        (["--how", "onnxx"], "--how: 'onnxx' is not a way to run a detector: choose from eager, compiled"),
        (["--how", ","], "--how: name at least one"),
        (["--image", "nowhere.jpg", "--how", "eager"], "nowhere.jpg"),
    ],
)
def test_wrong_words(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(*words) == 2
    assert text in capsys.readouterr().err
