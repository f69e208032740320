"""`detkit list configs` says what is true: sizes are counted, and AP is that of the recorded measurement."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from detkit.cli import main
from detkit.config import find_config, load_config
from detkit.config.catalog import ConfigEntry, catalog, header
from detkit.config.find import own_configs
from detkit.config.raw import parse_file
from detkit.detectors.build import build_detector

ROOT = Path(__file__).parents[2]
ENTRIES = catalog()
TRAINABLE = [entry for entry in ENTRIES if entry.kind == "config"]


def test_every_config_is_in_it_once() -> None:
    files = [find_config(entry.file) for entry in ENTRIES]
    assert len(set(files)) == len(files)
    aliases = set(own_configs()) - {re.sub(r"detkit:configs/|\.yaml", "", entry.file) for entry in ENTRIES}
    assert aliases == {"quickstart", "retinanet_r50_fpn", "retinanet_r18_fpn"}
    assert {entry.name for entry in TRAINABLE} >= {*aliases, "bccd", "ssd300_vgg16", "ssdlite320_mobilenet_v3"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_what_its_file_is(entry: ConfigEntry) -> None:
    assert entry.summary
    if entry.kind == "overlay":
        assert set(parse_file(find_config(entry.name))[0]) == {"losses"}
        return
    if entry.kind == "training":
        assert "train" in (content := parse_file(find_config(entry.name))[0])
        assert not {"head", "losses"} & set(content)
        return
    config = load_config(entry.name)
    assert config.to_dict() == load_config(entry.file).to_dict()
    assert ("train" in config) == (entry.kind == "config")
    assert bool(entry.data) == bool(entry.size) == (entry.kind == "config")


@pytest.mark.parametrize("entry", TRAINABLE, ids=lambda entry: entry.name)
def test_size_is_that_of_the_detector(entry: ConfigEntry) -> None:
    match = re.fullmatch(r"(\d+\.\d) M parameters with (\d+) classes", entry.size)
    assert match
    weights = [] if "weights" not in load_config(entry.name).backbone else ["backbone.weights=null"]
    with torch.device("meta"):
        detector = build_detector(load_config(entry.name, weights), int(match[2]))
    assert f"{sum(p.numel() for p in detector.parameters()) / 1e6:.1f}" == match[1]


@pytest.mark.parametrize("entry", TRAINABLE, ids=lambda entry: entry.name)
def test_ap_is_that_of_the_measurement(entry: ConfigEntry) -> None:
    said = [line for line in header(find_config(entry.file)) if line.startswith("AP: ")]
    if entry.measured_in is None:
        assert said == ["AP: not measured"]
        return
    assert len(said) == 1
    measurement = json.loads((ROOT / entry.measured_in).read_text(encoding="utf-8"))
    assert f"{measurement['ap']:.3f}" == f"{entry.ap:.3f}"
    assert measurement["step"] == load_config(entry.name).train.iterations


def test_it_is_printed_and_given_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "configs"]) == 0
    out = capsys.readouterr().out
    assert "AP: 0.675, benchmarks/results/shapes_resnet18.json" in out
    assert out.count("AP: not measured") == sum(entry.ap is None for entry in TRAINABLE)
    assert all(f"  {entry.name} " in out for entry in ENTRIES)
    assert main(["list", "configs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [entry.to_dict() for entry in ENTRIES]


def test_parts_are_given_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "necks", "--json"]) == 0
    (fpn,) = [part for part in json.loads(capsys.readouterr().out)["necks"] if part["name"] == "FPN"]
    assert re.fullmatch(r".*necks/fpn\.py:\d+", fpn["location"])
    assert main(["list", "confgs"]) == 2
    assert "did you mean configs?" in capsys.readouterr().err
