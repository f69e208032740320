import json
from pathlib import Path

import pytest
import yaml

from detkit.cli import main

CONFIG = str(Path(__file__).parents[2] / "configs/quickstart/shapes.yaml")
SMALL = ["data.train.dataset.num_images=30"]


def test_check_prints_a_table_and_writes_the_figures(tmp_path, capsys):
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


def test_fit_gives_yaml_that_reaches_as_much_as_it_says(tmp_path, capsys):
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
def test_senseless_arguments_are_named(arguments, text, capsys):
    assert main(["anchors", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {text}")


def test_overrides_may_come_after_options(capsys):
    assert main(["anchors", "check", CONFIG, "--images", "20", *SMALL]) == 0
    after = capsys.readouterr().out
    assert main(["anchors", "check", CONFIG, *SMALL, "--images", "20"]) == 0
    assert after == capsys.readouterr().out
