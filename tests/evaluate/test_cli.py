from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detkit.cli import main
from detkit.config import load_config
from detkit.data.datasets.shapes import ShapesDataset
from detkit.detectors.build import build_detector
from detkit.evaluate.cli import judge_self_test
from detkit.evaluate.coco import CocoResult
from detkit.structures import ClassMap
from detkit.train.checkpoint import Checkpoint, save_checkpoint

CONFIG = str(Path(__file__).parents[2] / "configs" / "quickstart" / "shapes.yaml")
SMALL = [
    "neck.channels=8", "head.num_convs=1", "data.val.dataset.num_images=3", "data.val.dataset.size=64",
    "data.loader.num_workers=0", "data.loader.batch_size=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector of the quickstart's classes."""
    config = load_config(CONFIG, SMALL)
    classes = ShapesDataset(num_images=1, split="val").classes
    torch.manual_seed(0)
    model = build_detector(config, len(classes)).state_dict()
    saved = Checkpoint(step=1, seed=0, model=model, config=config.to_dict(), classes=classes)
    folder = tmp_path_factory.mktemp("checkpoints")
    other = ClassMap(("wheel", *classes.names[1:]), classes.ids)
    save_checkpoint(folder / "other.pt", replace(saved, classes=other))
    return save_checkpoint(folder / "own.pt", saved)


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
def test_prints_the_table_and_writes_json(
    checkpoint: Path, tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "eval.json"
    overrides = [
        "data.val.dataset.num_images=5",
        "postprocess.score_threshold=0",
        f"evaluator.engine={engine}",
    ]
    assert main(["eval", str(checkpoint), *overrides, "--json", str(file), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content["num_images"] == 5
    assert content["num_detections"] > 50
    assert 0 <= content["ap"] < 0.5
    assert list(content["per_class"]) == list(ShapesDataset(num_images=1, split="val").classes.names)
    assert f"5 images, {sum(content['num_objects'].values())} objects" in out
    assert content["ap_large"] is None
    assert "large: n/a (no ground truth from 96² px on)" in out
    assert "-1" not in out
    assert "seconds: data" in out


def test_other_classes_are_refused_by_name(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(checkpoint.with_name("other.pt")), "--device", "cpu"]) == 2
    assert "only in the checkpoint: wheel; only in the data set: circle" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["checkpoint", "config"])
def test_self_test(checkpoint: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(checkpoint)] if source == "checkpoint" else [CONFIG, *SMALL]
    assert main(["eval", *arguments, "--self-test"]) == 0
    assert "self-test passed" in capsys.readouterr().out


def test_self_test_finds_a_transform_that_moves_boxes(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flip has no business in data.val, for its boxes are those of another picture."""
    flip = "data.val.transforms=[{type: RandomHorizontalFlip, p: 1.0}]"
    assert main(["eval", str(checkpoint), flip, "--self-test"]) == 1
    out = capsys.readouterr().out
    assert "self-test failed" in out
    assert "all classes: ap 0." in out


def test_self_test_without_ground_truth_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge_self_test(CocoResult({"ap": None}, {}, {}, 1, 0)) == 1
    assert "nothing to measure" in capsys.readouterr().out


def test_a_bad_override_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(checkpoint), "evaluator.engin=faster"]) == 2
    assert "engin" in capsys.readouterr().err


def test_figures_take_nobody_s_place(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"ap": 1}')
    for file, text in (
        (checkpoint, "would replace"), (mine, "detkit did not write it"), (tmp_path, "is a folder"),
        (mine / "x.json", "mine.json is a file, not a folder"), (Path(""), "names no file"),
    ):  # fmt: skip
        assert main(["eval", str(checkpoint), "--json", str(file)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: --json: ")
        assert text in err
    assert mine.read_text() == '{"ap": 1}'
    words = ["eval", str(checkpoint), "--device", "cpu", "--json", str(tmp_path / "figures.json")]
    assert main(words) == 0
    assert main(words) == 0  # its own may be replaced
