"""Paths in a config count from the file in which they are written, in a run they are absolute."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from detkit.config import Config, ConfigError, load_config
from detkit.config.paths import absolute, moved_everywhere, moved_hint
from detkit.data.datasets.base import DetectionDataset
from detkit.registry import DATASETS, PathStr, WeightsStr
from detkit.registry.path_types import is_path
from detkit.registry.values import convert, type_name
from tests.refusals import Refuses

SHAPES = Path(__file__).parents[2] / "configs/quickstart/shapes.yaml"
COCO = "dataset: {{type: CocoDataset, annotations: {}.json, images: images}}"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in `own` over one in `base`, read from `here`."""
    for name in ("own", "base", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "base/base.yaml").write_text(
        f"_base_: {SHAPES}\ndata:\n  train:\n    {COCO.format('train')}\n  val:\n    {COCO.format('val')}\n"
    )
    own = "_base_: ../base/base.yaml\ndata:\n  val:\n    dataset: {annotations: own.json}\n"
    (tmp_path / "own/config.yaml").write_text(own)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_path_counts_from_the_file_that_has_it(files: Path) -> None:
    config = load_config("../own/config.yaml", ["data.train.dataset.images=mine", "backbone.weights=a/b.pt"])
    assert config.paths() == {
        "data.train.dataset.annotations": str(files / "base/train.json"),
        "data.train.dataset.images": str(files / "here/mine"),
        "data.val.dataset.annotations": str(files / "own/own.json"),
        "data.val.dataset.images": str(files / "base/images"),
        "backbone.weights": str(files / "here/a/b.pt"),
    }
    assert config.data.val.dataset.annotations == str(files / "own/own.json")
    assert config.paths("data.val") == {k: v for k, v in config.paths().items() if k.startswith("data.val.")}


def test_an_overlay_and_a_whole_part_on_the_command_line_count_from_their_own_place(files: Path) -> None:
    (files / "base/over.yaml").write_text("data: {val: {dataset: {images: over}}}")
    part = "data.train.dataset={type: CocoDataset, annotations: x.json, images: ~/x}"
    config = load_config(files / "own/config.yaml", [part], overlays=[files / "base/over.yaml"])
    assert config.data.val.dataset.images == str(files / "base/over")
    assert config.data.train.dataset.annotations == str(files / "here/x.json")
    assert config.data.train.dataset.images == str(Path.home() / "x")


def test_an_interpolated_path_counts_from_where_it_was_written(files: Path) -> None:
    (files / "own/config.yaml").write_text(
        "_base_: ../base/base.yaml\ndata:\n  val:\n    dataset:\n"
        "      annotations: ${data.train.dataset.images}/val.json\n"
        "      images: ${...train.dataset.images}\n"
    )
    config = load_config(files / "own/config.yaml")
    assert config.data.val.dataset.annotations == str(files / "base/images/val.json")
    assert config.data.val.dataset.images == str(files / "base/images")
    moved = load_config(files / "own/config.yaml", ["data.train.dataset.images=there"])
    assert moved.data.val.dataset.annotations == str(files / "here/there/val.json")


def test_a_saved_config_loads_anywhere_to_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(files / "own/config.yaml")
    (files / "saved.yaml").write_text(config.to_yaml())
    monkeypatch.chdir(files)
    assert load_config(files / "saved.yaml") == config == Config.from_dict(config.to_dict())


def test_names_and_addresses_of_weights_are_no_paths(files: Path) -> None:
    for name in ("IMAGENET1K_V1", "https://host/a.pth", "hf-hub:timm/x", ""):
        assert load_config(SHAPES, [f"backbone.weights='{name}'"]).paths() == {}
    assert load_config(SHAPES, ["backbone.weights=mine.pth"]).backbone.weights == str(files / "here/mine.pth")
    assert is_path("IMAGENET1K_V1", "a path")
    assert not is_path("IMAGENET1K_V1", "a path or a name")


def test_a_plugin_gets_the_rule_by_its_annotation(refuses: Refuses, files: Path) -> None:
    with DATASETS.temporary():

        @DATASETS.register()
        class Pages(DetectionDataset):
            def __init__(
                self, *, lists: list[PathStr], pairs: tuple[PathStr, int] = ("a", 1), named: dict[str, PathStr] = {},  # noqa: B006
                maybe: PathStr | None = None, kind: str = "x/y", weights: WeightsStr = "name",
            ) -> None:  # fmt: skip
                self.lists = lists

        (files / "own/pages.yaml").write_text(
            f"_base_: {SHAPES}\ndata:\n  val:\n    dataset: {{type: Pages, lists: [a.txt, /b.txt], maybe: c, "
            "named: {k.x: d}}\n"
        )
        config = load_config(files / "own/pages.yaml")
        node = config.data.val.dataset
        assert node.lists == [str(files / "own/a.txt"), "/b.txt"]
        assert (node.maybe, node.named["k.x"]) == (str(files / "own/c"), str(files / "own/d"))
        assert (node.pairs, node.kind, node.weights) == ([str(files / "own/a"), 1], "x/y", "name")
        assert DATASETS.build(node).lists == node.lists
        with refuses(ConfigError):
            load_config(files / "own/pages.yaml", ["data.val.dataset.maybe=3"])
    assert convert("x", PathStr) == "x"
    assert type_name(PathStr) == "a path"


def test_moved_data_take_one_override(refuses: Refuses, files: Path) -> None:
    saved = files / "saved.yaml"
    saved.write_text(load_config(files / "own/config.yaml").to_yaml())
    config = load_config(saved, [f"moved={{{files}/base: ../new}}"])
    assert config.data.train.dataset.images == str(files / "new/images")
    assert config.data.val.dataset.annotations == str(files / "own/own.json")
    assert "moved" not in config.to_dict()
    with refuses(ConfigError):
        load_config(saved, [f"moved={{{files}/bas: /new}}"])
    with refuses(ValueError):
        load_config(saved, ["moved=[a]"])


def test_moved_data_can_be_told_by_the_environment(
    refuses: Refuses, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETKIT_MOVED", f"{files}/base={files}/new:/nothing=/there")
    config = Config.from_dict(load_config(files / "own/config.yaml").to_dict())
    assert config.data.val.dataset.images == str(files / "new/images")
    monkeypatch.setenv("DETKIT_MOVED", f"{files}/a: b=/c: d:{files}/base={files}/new")
    assert moved_everywhere() == {f"{files}/a: b": "/c: d", f"{files}/base": f"{files}/new"}
    monkeypatch.setenv("DETKIT_MOVED", "/old")
    with refuses(ValueError):
        load_config(files / "own/config.yaml")


def test_imports_move_as_well(files: Path) -> None:
    (files / "own/part.py").write_text("")
    (files / "own/config.yaml").write_text(f"_base_: {SHAPES}\nimports: [./part.py]\n")
    saved = files / "saved.yaml"
    saved.write_text(load_config(files / "own/config.yaml").to_yaml())
    (files / "own").rename(files / "new")
    config = load_config(saved, [f"moved={{{files}/own: {files}/new}}"])
    assert list(config.imports) == [str(files / "new/part.py")]


def test_a_missing_file_is_told_with_key_place_and_the_near_one(refuses: Refuses, files: Path) -> None:
    from detkit.data.build import build_dataset

    (files / "here/own.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as told:
        build_dataset(load_config(files / "own/config.yaml"), "val")
    text = str(told.value)
    assert f"data.val.dataset: CocoDataset: annotation file not found: {files}/own/own.json" in text
    assert f"data.val.dataset.annotations (../own/config.yaml:4) is {files}/own/own.json, which does not exist" in (
        text.replace(str(files / "own/config.yaml"), "../own/config.yaml")
    )
    assert f"own.json is relative to {files}/own, the folder of the config, not to the current folder" in text
    assert f"{files}/here/own.json exists: write that instead" in text
    absolute_one = f"data.val.dataset.annotations={files}/gone/x.json"
    with refuses(FileNotFoundError):
        build_dataset(load_config(files / "own/config.yaml", [absolute_one]), "val")


def test_the_config_of_a_run_by_an_earlier_detkit_counts_from_the_current_folder(files: Path) -> None:
    run = files / "runs/old"
    run.mkdir(parents=True)
    values = load_config(files / "own/config.yaml").to_dict()
    values["data"]["val"]["dataset"]["images"] = "data/val"
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert load_config(run / "config.yaml").data.val.dataset.images == str(run / "data/val")
    (run / "environment.json").write_text("{}")
    assert load_config(run / "config.yaml").data.val.dataset.images == str(files / "here/data/val")


def test_dots_behind_a_link_are_not_folded(tmp_path: Path) -> None:
    (tmp_path / "far/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far/below")
    assert absolute("a/../b", tmp_path) == str(tmp_path / "b")
    assert Path(absolute("link/../x", tmp_path)).resolve() == tmp_path / "far/x"


def test_the_hint_of_a_moved_folder_can_be_pasted(files: Path) -> None:
    for name in ("plain", "my data #1: 100% ü", "it's, {here}"):
        folder = files / name
        hint = moved_hint(folder)
        words = shlex.split(hint.replace("NEW_FOLDER", "/new"))
        text = f"data.val.dataset.annotations={json.dumps(str(folder / 'x.json'))}"
        assert load_config(files / "own/config.yaml", [text, *words]).data.val.dataset.annotations == "/new/x.json"


def test_pairs_in_lists_in_lists_are_no_paths(tmp_path: Path) -> None:
    """The type is a union, of which the value fits the second."""
    pairs = [[[8, 8], [8, 16]], [[16, 16]], [[32.5, 32]]]
    config = load_config(SHAPES, [f"anchors={{type: ExplicitAnchors, sizes: {pairs}}}"])
    assert config.to_dict()["anchors"]["sizes"] == pairs
