"""docs/python.md, done block by block in one namespace, on tiny data and for two steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from detkit import api
from detkit.backbones.base import Backbone
from detkit.config import as_config
from detkit.data.datasets.shapes import ShapesDataset
from detkit.predict import predictor

PAGE = (Path(__file__).parents[1] / "docs/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHORT = {
    "train.iterations": 2, "schedule.warmup_iterations": 0, "train.eval_every": 0, "train.device": "cpu",
    "data.loader": {"batch_size": 2, "num_workers": 0}, "data.train.dataset.num_images": 4,
    "data.val.dataset.num_images": 2,
}  # fmt: skip
LIGHT = {"backbone.depth": 18, "neck.channels": 16, "head.num_convs": 0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos and a COCO data set; trainings are short, networks small, and nothing is downloaded."""
    data = ShapesDataset(num_images=4, size=64)
    for split in ("train", "val"):
        data.write_coco(tmp_path / "data" / split, tmp_path / f"data/{split}.json")
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        data.load_image(0).save(tmp_path / f"photos/{name}.jpg")

    def shortened(source: Any, overrides: Any = (), **more: Any) -> Any:
        config = as_config(source, overrides, **more)
        on_shapes = "data.train.dataset" in config and config.data.train.dataset.type == "ShapesDataset"
        return as_config(config, {**LIGHT, **(SHORT if on_shapes else {})})

    def published(source: Any, **more: Any) -> Any:
        return load(Path("runs/x") if str(source).startswith("torchvision:") else source, **more)

    load = predictor.load_detector
    monkeypatch.setattr(predictor, "load_detector", published)
    monkeypatch.setattr(api, "as_config", shortened)
    monkeypatch.setattr("detkit.backbones.resnet.ResNet.load_pretrained", Backbone.load_pretrained)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_block_of_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("supervision")
    assert len(BLOCKS) >= 7
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["run"].result.step == 2
    assert len(names["detections"]) == 2
    assert isinstance(names["result"].per_class, Mapping)
    assert (folder / "found.png").is_file()
    assert "SigmoidFocalLoss" in capsys.readouterr().out


def test_the_loop_is_short() -> None:
    (loop,) = [block for block in BLOCKS if "optimizer.step()" in block]
    assert len([line for line in loop.splitlines() if line.strip()]) <= 15


def test_the_table_names_what_there_is() -> None:
    import detkit

    table = PAGE.partition("| name |")[2].partition("\n\n")[0]
    assert set(re.findall(r"detkit\.(\w+)", table)) <= set(detkit.__all__)
    documented = set(re.findall(r"\w+", table))
    assert set(detkit.NAMES) <= documented
