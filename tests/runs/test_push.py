"""`detkit push` to a hub, through the real huggingface_hub client, and the card of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detkit.checkpoint import Checkpoint, save_checkpoint, step_path
from detkit.cli import main
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.interop import load_any
from detkit.runs.run import Run
from detkit.structures import ClassMap
from tests.conftest import Folder
from tests.hub.fake_hub import FakeHub
from tests.web import Web


@pytest.fixture
def run(folder: Folder) -> Path:
    """A run with a best checkpoint after step 2, evaluated twice."""
    config = load_config(folder.config, ["backbone.out_features=[c3]"])
    root = folder.root / "run"
    state = build_detector(config, 1).state_dict()
    checkpoint = Checkpoint(step=2, seed=0, model=state, config=config.to_dict(), classes=ClassMap(("cat",), (1,)))
    save_checkpoint(step_path(root, 2), checkpoint).rename(root / "checkpoints/best.pt")
    (root / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    lines = ['{"step": 2, "eval": {"ap": 0.5, "ap50": 0.75}}', '{"step": 4, "eval": {"ap": 0.25, "ap50": 0.5}}']
    (root / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "result.json").write_text('{"step": 4, "ap": 0.25, "command": "detkit train x.yaml"}', encoding="utf-8")
    return root


@pytest.fixture
def hub(web: Web, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # plain HTTP
    return FakeHub(web)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_figures_are_those_of_the_exported_weights(run: Path) -> None:
    """The last evaluation is of step 4, the best checkpoint of step 2."""
    model = Run(run).exportable()
    assert (model.saved.step, model.figures["ap"], model.figures["ap50"]) == (2, 0.5, 0.75)
    assert model.command == "detkit train x.yaml"
    (run / "result.json").write_text('{"step": 2, "ap": 0.5, "num_images": 3}', encoding="utf-8")
    assert Run(run).exportable().figures["num_images"] == 3


def test_a_run_writes_its_card(run: Path, tmp_path: Path) -> None:
    folder = Run(run).export_card(tmp_path / "x")
    assert "value: 0.5" in (folder / "README.md").read_text(encoding="utf-8")
    assert same(load_any(folder).model, Run(run).checkpoint().model)


def test_an_address_is_no_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It became a folder `hf:` in the present one, and nothing was uploaded."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="folder: hf://me/x is an address, not a folder"):
        Run(run).export_card("hf://me/x")
    assert main(["push", str(run), "--to", "hf://me/x"]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_pushed_and_loaded_by_name(run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "hf://me/cats", "--private"]) == 0
    assert f"{hub.web.url}/me/cats: model.safetensors" in capsys.readouterr().out
    repository = hub.repositories["me/cats"]
    assert repository.private
    assert sorted(repository.files) == ["README.md", "config.json", "model.safetensors"]
    assert b'detkit.load("hf://me/cats")' in repository.files["README.md"]
    assert same(load_any("hf://me/cats").model, Run(run).checkpoint().model)
    assert main(["push", str(run), "hf://me/cats@second"]) == 0
    assert repository.branches == ["main", "second"]


def test_what_the_hub_refuses(
    run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    assert main(["push", str(run), "hf://me/cats"]) == 2
    error = capsys.readouterr().err
    assert "error: hf://me/cats can't be written" in error
    assert "hf auth login" in error
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert main(["push", str(run), "hf://me/cats"]) == 2
    assert "can't be written" in capsys.readouterr().err
