import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detkit.cli import main

CONFIG = str(Path(__file__).parents[2] / "configs/quickstart/shapes.yaml")
SMALL = ["data.train.dataset.num_images=30"]


def test_check_prints_a_table_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "reach.json"
    assert main(["anchors", "check", CONFIG, *SMALL, "--images", "20", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "training objects of 20 of 30 images" in text
    figures = json.loads(file.read_text())
    total = figures["all"]["objects"]
    assert total > 0
    for group in ("size", "shape", "level"):
        assert sum(part["objects"] for part in figures[group].values()) == total
    assert list(figures["level"]) == ["stride 8", "stride 16", "stride 32"]
    everything = figures["all"]
    assert everything["objects"] * (1 - everything["reached"]) == pytest.approx(
        everything["forced"] + everything["lost"]
    )


def test_fit_gives_yaml_that_reaches_as_much_as_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anchors", "fit", CONFIG, *SMALL, "--per-cell", "2", "--images", "0"]) == 0
    text = capsys.readouterr().out
    node = yaml.safe_load(text)["anchors"]
    assert node["type"] == "ExplicitAnchors"
    assert [len(level) for level in node["sizes"]] == [2, 2, 2]
    pasted = tmp_path / "mine.yaml"
    pasted.write_text(f"_base_: {CONFIG}\n{text}")
    assert main(["anchors", "check", str(pasted), *SMALL, "--images", "0"]) == 0
    share = next(line for line in text.splitlines() if line.startswith("# after")).split()[2]
    assert f"{share} %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["check", CONFIG, "--iou", "0"], "--iou"), (["check", CONFIG, "--images", "-1"], "--images"),
     (["fit", CONFIG, *SMALL, "--per-cell", "0"], "--per-cell")],
)  # fmt: skip
def test_senseless_arguments_are_named(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anchors", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {text}")


def test_overrides_may_come_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anchors", "check", CONFIG, "--images", "20", *SMALL]) == 0
    after = capsys.readouterr().out
    assert main(["anchors", "check", CONFIG, *SMALL, "--images", "20"]) == 0
    assert after == capsys.readouterr().out


def test_objects_that_never_reach_the_network_are_lost(
    folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("train", [[[8, 8, 40, 30], [60, 10, 20, 0.9]], [[8, 8, 3, 30]], [[8, 8, 40, 30]]])
    small = "data.train.transforms=[{type: ResizeShortestEdge, short: 16}]"
    file = tmp_path / "reach.json"
    assert main(["anchors", "check", str(folder.config), small, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "2 of 4 objects never reach the network: 1 by the annotation, 1 by ResizeShortestEdge" in out
    figures = json.loads(file.read_text())
    assert figures["all"]["objects"] == 4
    assert figures["all"]["lost"] >= 2
    assert figures["all"]["reached"] <= 0.5
    assert figures["level"]["none, never reach the network"]["lost"] == 2
    assert main(["anchors", "fit", str(folder.config), small, "--per-cell", "1"]) == 0
    text = capsys.readouterr().out
    assert "# " + str(folder.root / "train.json") + ": 2 of 4 objects never reach" in text
    assert yaml.safe_load(text)["anchors"]["sizes"]


def test_a_data_set_of_lost_objects_only_has_a_recall_of_nothing(
    folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("train", [[[8, 8, 0.5, 30]]])
    assert main(["anchors", "check", str(folder.config)]) == 0
    out = capsys.readouterr().out
    everything = next(line for line in out.splitlines() if line.startswith("all objects"))
    assert everything.split()[2:] == ["1", "0.0", "%", "0.000", "0", "1"]
    assert "1 of 1 objects never reach the network" in out
