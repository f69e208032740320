"""Configs and overrides as Python values: mappings, `Config` objects, numbers of numpy, paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.config import Config, as_config, load_config
from tests.conftest import CONFIG
from tests.refusals import Refuses


def test_a_file_a_mapping_and_a_config_give_the_same() -> None:
    config = load_config(CONFIG)
    by_base = as_config({"_base_": str(CONFIG)})
    assert as_config(CONFIG) == as_config(str(CONFIG)) == by_base == as_config(config.to_dict()) == config
    assert as_config(config) is config


@pytest.mark.parametrize("source", ["file", "mapping", "config"])
def test_overrides_of_python_values_are_those_of_the_command_line(source: str) -> None:
    given: Any = {"file": CONFIG, "mapping": {"_base_": str(CONFIG)}, "config": load_config(CONFIG)}[source]
    values = {
        "train.iterations": np.int64(7),
        "optimizer": {"lr": np.float32(0.5)},
        "losses.box": {"type": "SmoothL1Loss", "beta": 0.1},
        "anchors.aspect_ratios": (0.5, 2),
        "train.clip_norm": None,
    }
    texts = [
        "train.iterations=7", "optimizer.lr=0.5", "losses.box={type: SmoothL1Loss, beta: 0.1}",
        "anchors.aspect_ratios=[0.5, 2]", "train.clip_norm=null",
    ]  # fmt: skip
    config = as_config(given, values)
    assert config == load_config(CONFIG, texts)
    assert config.origin("train.iterations") == f"overrides (train.iterations={np.int64(7)!r})"


def test_texts_stay_texts(tmp_path: Path) -> None:
    image_folder, names = tmp_path / "a # b", ["1e-3", "yes"]
    node = {"type": "CocoDataset", "annotations": tmp_path / "a.json", "images": image_folder, "class_names": names}
    config = as_config(CONFIG, {"data.train.dataset": node})
    assert config.data.train.dataset.images == str(image_folder)
    assert config.data.train.dataset.class_names == names


def test_an_override_may_change_the_type_of_a_part_that_was_overridden_before() -> None:
    config = load_config(CONFIG, ["losses.box.weight=3"])
    assert as_config(config, {"losses.box.type": "SmoothL1Loss"}).losses.box.type == "SmoothL1Loss"


def test_a_relative_path_of_a_mapping_counts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part.yaml").write_text("seed: 5\n")
    node = {"type": "VocDataset", "root": "voc", "split": "train"}
    config = as_config({"_base_": [str(CONFIG), "part.yaml"], "data": {"train": {"dataset": node}}})
    assert (config.seed, config.data.train.dataset.root) == (5, str(tmp_path / "voc"))


def test_overlays_are_laid_over_a_config_and_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "over.yaml").write_text("seed: 9\n")
    for source in (load_config(CONFIG), {"_base_": str(CONFIG)}):
        assert as_config(source, overlays=[tmp_path / "over.yaml"]).seed == 9


@pytest.mark.parametrize(
    ("source", "overrides"),
    [
        (3, {}),
        ({"_base_": "gone.yaml"}, {}),
        ({"_base_": 3}, {}),
        ({"_base_": str(CONFIG), "train": {"iterationz": 3}}, {}),
        (CONFIG, {"train.iterationz": 3}),
        (CONFIG, {"train.iterations": 0}),
        (CONFIG, {"train iterations": 3}),
        (CONFIG, {"backbone": {"type": object()}}),
        (CONFIG, {"seed": np.arange(3)}),
        (CONFIG, [3]),
    ],
)
def test_what_is_no_config_is_named(refuses: Refuses, source: Any, overrides: Any, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with refuses(ValueError if source != {"_base_": "gone.yaml"} else FileNotFoundError, hide="0x[0-9a-f]+"):
        as_config(source, overrides)


def test_it_is_a_config() -> None:
    assert isinstance(as_config({"_base_": str(CONFIG)}), Config)
