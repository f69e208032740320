"""`data.root` and `data.split`: both data sets of a config in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detkit.config import Config, load_config
from tests.refusals import Refuses

BASE = "retinanet_r18_fpn"


def data(*overrides: str, base: str | Path = BASE) -> Any:
    return load_config(base, overrides).data


def test_it_is_the_data_set_of_both_splits(tmp_path: Path) -> None:
    config: Any = load_config(BASE, [f"data.root={tmp_path}", "data.split.val=0.3", "data.split.file=lists"])
    for split in ("train", "val"):
        node = config.data[split].dataset
        assert (node.type, node.root, node.split, node.val) == ("AutoDataset", str(tmp_path), split, 0.3)
        assert node.lists == str(Path.cwd() / "lists")
        assert config.origin(f"data.{split}.dataset.root") == f"command line (data.root={tmp_path})"
        assert config.origin(f"data.{split}.dataset.val") == "command line (data.split.val=0.3)"
    assert "root" not in config.data
    assert "split" not in config.data
    assert Config.from_dict(config.to_dict()) == config


def test_a_file_counts_its_paths_from_its_folder_and_replaces_what_its_bases_have(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/mine.yaml").write_text(f"_base_: {BASE}\ndata: {{root: ../set}}\n")
    mine = data(base=tmp_path / "below/mine.yaml")
    assert mine.train.dataset.root == mine.val.dataset.root == str(tmp_path / "set")
    assert mine.train.dataset.val == 0.2
    assert mine.train.transforms == data().train.transforms


def test_a_data_set_beside_or_above_it_stays(tmp_path: Path) -> None:
    node = "{type: ShapesDataset, num_images: 3}"
    (tmp_path / "mine.yaml").write_text(f"_base_: {BASE}\ndata:\n  root: set\n  val: {{dataset: {node}}}\n")
    mine = data(base=tmp_path / "mine.yaml")
    assert (mine.train.dataset.type, mine.val.dataset.type) == ("AutoDataset", "ShapesDataset")
    (tmp_path / "over.yaml").write_text(f"_base_: mine.yaml\ndata: {{train: {{dataset: {node}}}}}\n")
    assert data(base=tmp_path / "over.yaml").train.dataset.type == "ShapesDataset"
    again = data("data.root=other", base=tmp_path / "over.yaml")
    assert again.train.dataset.root == again.val.dataset.root == str(Path.cwd() / "other")


def test_other_keys_may_quote_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"_base_: {BASE}\ndata:\n  root: set\n  split: {{file: '${{data.root}}/lists'}}\n"
    )
    assert data(base=tmp_path / "mine.yaml").val.dataset.lists == str(tmp_path / "set/lists")


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.split.val=0.1"],
        ["data.root=set", "data.split=3"],
        ["data.root=set", "data.split.val=2"],
        ["data.root=set", "data.split.vall=0.1"],
        ["data.root=3"],
        ["data.train.dataset.split=x", "data.root=set"],
    ],
)
def test_what_can_not_be_meant_is_refused(refuses: Refuses, overrides: list[str]) -> None:
    with refuses(ValueError):
        load_config(BASE, overrides)


@pytest.mark.parametrize("words", ["{root: set}", "{type: auto, root: set}"])
def test_a_data_set_without_a_type_is_found_by_looking(tmp_path: Path, words: str) -> None:
    sections = "\n".join(f"  {split}: {{dataset: {words}, transforms: []}}" for split in ("train", "val"))
    (tmp_path / "mine.yaml").write_text(f"_base_: retinanet\ndata:\n{sections}\n")
    node = data(base=tmp_path / "mine.yaml").train.dataset
    assert (node.type, node.root, node.split, node.val) == ("AutoDataset", str(tmp_path / "set"), None, None)


def test_a_missing_data_set_is_still_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("_base_: retinanet\ndata: {train: {transforms: []}, val: {transforms: []}}\n")
    with pytest.raises(ValueError, match=r"data\.train\.dataset: missing: give it a `type`"):
        load_config(tmp_path / "mine.yaml")
