"""Configs by path and by name, from any folder, and what is said of one that is not there."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from detkit.cli import main
from detkit.compare.plan import make_plan
from detkit.config import find, find_config, load_config
from detkit.config.find import own_configs, own_folder
from detkit.data.build import build_dataset
from detkit.train.cli import read
from tests.refusals import Refuses

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETKIT_DATASETS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("quickstart", "quickstart.yaml"),
        ("quickstart/shapes", "quickstart/shapes.yaml"),
        ("shapes", "quickstart/shapes.yaml"),
        ("configs/quickstart/shapes.yaml", "quickstart/shapes.yaml"),
        ("detkit:configs/quickstart/shapes.yaml", "quickstart/shapes.yaml"),
        ("retinanet", "base/retinanet.yaml"),
        ("retinanet/r50_fpn_1x.yaml", "retinanet/r50_fpn_1x.yaml"),
        ("retinanet_r50_fpn", "retinanet_r50_fpn.yaml"),
        ("retinanet_r18_fpn", "retinanet_r18_fpn.yaml"),
        ("ssd", "base/ssd.yaml"),
        ("ssdlite", "base/ssdlite.yaml"),
        ("ssd300_vgg16", "ssd/ssd300_vgg16.yaml"),
        ("ssdlite320_mobilenet_v3", "ssd/ssdlite320_mobilenet_v3.yaml"),
        ("balanced_bce_alpha0.99", "losses/balanced_bce_alpha0.99.yaml"),
    ],
)
def test_a_name_is_found_from_any_folder(here: Path, name: str, file: str) -> None:
    assert find_config(name) == CONFIGS / file


def test_the_name_of_every_file_is_enough(here: Path) -> None:
    assert len(own_configs()) > 40
    assert [path for path in own_configs().values() if find_config(path.stem) != path] == []


def test_the_configs_of_an_installed_detkit_are_inside_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "detkit/configs").mkdir(parents=True)
    (here / "detkit/configs/mine.yaml").touch()
    (here / "configs").mkdir()
    monkeypatch.setattr(find, "PACKAGE", here / "detkit")
    assert own_folder() == here / "detkit/configs"
    assert list(own_configs()) == ["mine"]


def test_a_file_of_ones_own_comes_first_if_its_path_is_given(here: Path) -> None:
    (here / "retinanet").mkdir()
    (here / "focal.yaml").touch()
    (here / "configs/quickstart").mkdir(parents=True)
    (here / "configs/quickstart/shapes.yaml").touch()
    assert find_config("retinanet") == CONFIGS / "base/retinanet.yaml"
    assert find_config("focal") == CONFIGS / "losses/focal.yaml"
    assert find_config("focal.yaml") == here / "focal.yaml"
    assert find_config("configs/quickstart/shapes.yaml") == here / "configs/quickstart/shapes.yaml"


def test_a_name_of_several_is_refused(refuses: Refuses, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        (here / folder / "same.yaml").touch()
    monkeypatch.setattr(find, "own_folder", lambda: here)
    with refuses(ValueError):
        find_config("same")
    assert find_config("b/same") == here / "b/same.yaml"


@pytest.mark.parametrize(
    "source",
    [
        "quickstrat",
        "nothing_of_the_kind",
        "./focal",
        "configs/retinanet/r50.yaml",
        "detkit:scaffold/bse.yaml",
        "a_folder",
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(refuses: Refuses, here: Path, source: str) -> None:
    (here / "a_folder").mkdir()
    with refuses(OSError):
        find_config(source)


def test_a_base_is_found_by_name_and_as_the_readme_writes_it(refuses: Refuses, here: Path) -> None:
    for base in ("retinanet_r18_fpn", "configs/retinanet/r18_fpn_small.yaml", "detkit:configs/retinanet_r18_fpn.yaml"):
        (here / "mine.yaml").write_text(f"_base_: {base}\nseed: 3\n", encoding="utf-8")
        config = load_config("mine.yaml")
        assert (config.seed, config.backbone.depth) == (3, 18)
        assert config.origin("backbone.depth") == "detkit:configs/retinanet/r18_fpn_small.yaml:10"
        assert config.origin("anchors.type") == "detkit:configs/retinanet/r18_fpn_small.yaml:18"
        assert config.origin("assigner.type") == "detkit:configs/base/retinanet.yaml:12"
    (here / "mine.yaml").write_text("seed: 3\n_base_: [retinanet, bce_minning]\n", encoding="utf-8")
    with refuses(FileNotFoundError):
        load_config("mine.yaml")


def test_messages_name_files_as_they_can_be_given(
    here: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config("quickstart").name == "detkit:configs/quickstart.yaml"
    place = load_config("quickstart").location("train.iterations")
    assert place.startswith("detkit:configs/quickstart/shapes.yaml:")
    assert find_config(place.rpartition(":")[0]) == CONFIGS / "quickstart/shapes.yaml"
    with refuses(ValueError):
        load_config("quickstart", ["backbone.depht=18"])
    monkeypatch.chdir(CONFIGS.parent)
    assert load_config("quickstart").location("train.iterations") == place.removeprefix("detkit:")


def test_one_config_under_all_its_names(here: Path) -> None:
    config = load_config("quickstart")
    for source in ("shapes", "configs/quickstart/shapes.yaml", CONFIGS / "quickstart/shapes.yaml"):
        assert load_config(source).to_dict() == config.to_dict()
    assert load_config("quickstart", overlays=["bce_mining"]).losses.classification.type == "BCEMiningLoss"


def test_runs_and_variants_have_the_whole_name(here: Path) -> None:
    """`.99` is no suffix of a file."""
    plan = make_plan("quickstart", ["balanced_bce_alpha0.99", "balanced_bce_alpha0.999"])
    assert [variant.name for variant in plan.variants] == ["balanced_bce_alpha0.99", "balanced_bce_alpha0.999"]
    assert plan.title == "quickstart: 2 variants"
    words = argparse.Namespace(**dict.fromkeys(("resume", "overwrite", "allow", "output", "init_from")))
    words.config, words.overrides, words.overlay = "quickstart", [], ["balanced_bce_alpha0.99"]
    assert read(words)[1] == Path("runs/quickstart-balanced_bce_alpha0.99")


def test_data_of_a_config_that_came_with_detkit_lie_in_the_current_folder(
    here: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "data.val.dataset.images"
    assert load_config("retinanet_r50_fpn").paths()[key] == str(here / "datasets/coco/val2017")
    (here / "mine").mkdir()
    (here / "mine/own.yaml").write_text("_base_: bccd\n", encoding="utf-8")
    assert set(load_config("mine/own.yaml").paths().values()) == {str(here / "datasets/bccd")}
    with refuses(FileNotFoundError):
        build_dataset(load_config("retinanet_r50_fpn"), "val")
    monkeypatch.setenv("DETKIT_DATASETS", "../data")
    assert load_config("retinanet_r50_fpn").paths()[key] == str(here.parent / "data/coco/val2017")
    with refuses(FileNotFoundError):
        build_dataset(load_config("retinanet_r50_fpn"), "val")
    monkeypatch.setenv("DETKIT_DATASETS", "/data")
    assert load_config("retinanet_r50_fpn").paths()[key] == "/data/coco/val2017"


def test_no_config_that_comes_with_detkit_names_data_beside_itself(here: Path) -> None:
    for name, path in own_configs().items():
        if path.parent.name not in ("losses", "training"):
            outside = [p for p in load_config(name).paths().values() if not Path(p).is_relative_to(here / "datasets")]
            assert outside == [], name


def test_check_takes_overrides_and_overlays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "quickstart", "ssd_shapes", "seed=3", "--overlay", "focal"]) == 0
    assert capsys.readouterr().out == "quickstart: ok\nssd_shapes: ok\n"
    assert main(["config", "check", "quickstart", "train.iterations=10"]) == 1
    assert "command line (train.iterations=10)" in capsys.readouterr().err
    assert main(["config", "check", "quickstart", "seed=3", "--overlay", "fcal"]) == 1
    assert "'fcal' is neither a config file nor the name of a config; did you mean focal?" in capsys.readouterr().err
    assert main(["config", "check", "seed=3"]) == 2
    assert "there is no config to check" in capsys.readouterr().err


def test_show_takes_an_overlay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "quickstart", "--overlay", "bce", "--origin"]) == 0
    assert "detkit:configs/losses/bce.yaml:6" in capsys.readouterr().out


def test_eval_takes_a_name_for_its_self_test(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "quickstart", "--self-test", "data.val.dataset.num_images=2"]) == 0
    assert "1.000" in capsys.readouterr().out
