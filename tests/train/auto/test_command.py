from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from detkit.cli import main
from detkit.config import load_config
from detkit.data.build import build_datasets
from detkit.data.datasets.auto import find_data
from detkit.hub.download import FetchError
from detkit.registry import DATASETS
from detkit.train.auto import backbones, rules
from detkit.train.auto.backbones import Start, choose_start, network_of
from detkit.train.auto.command import run_name
from detkit.train.auto.configure import Configurator
from detkit.train.auto.facts import read_facts
from tests.refusals import Refuses, steady
from tests.train.auto.conftest import add_image

QUICK = ("data.loader.batch_size=2", "train.precision=fp32", "train.device=cpu", "train.threads=1")


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def one_timed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.train.auto.timing.TIMED", 1)


def test_a_folder_trains_and_its_config_trains_again(
    photos: Path, cached_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", str(photos), *QUICK, "train.iterations=2", "--minutes", "1", "--output", str(run)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Pascal VOC, because of" in out
    assert f"backbone.weights: {cached_weights}\n    # ImageNet weights found in DETKIT_CACHE" in out
    assert "train.iterations: 2\n    # given on the command line" in out
    assert (run / "result.json").is_file()
    config = load_config(run / "auto.yaml")
    assert config.to_dict() == load_config(run / "config.yaml").to_dict()
    assert config.options("train").iterations == 2
    assert main(["train", str(photos), "--output", str(run), "--resume"]) == 0
    again = tmp_path / "again"
    assert main(["train", str(run / "auto.yaml"), "--output", str(again)]) == 0
    steps = [torch.load(folder / "checkpoints/step_00000002.pt", weights_only=False) for folder in (run, again)]
    assert all(torch.equal(a, b) for a, b in zip(*(weights(step) for step in steps), strict=True))


def weights(content: Any) -> list[torch.Tensor]:
    """All tensors of a checkpoint's model."""
    return [value for value in content["model"].values() if isinstance(value, torch.Tensor)]


def test_pictures_of_a_run_inside_of_the_data_are_no_data(photos: Path) -> None:
    for split in ("train", "runs/first"):
        add_image(photos / split, "more", [("cat", 8, 8, 48, 48)])
    for file in ("config.yaml", "metrics.jsonl"):
        (photos / "runs/first" / file).write_text("")
    found = find_data(photos)
    assert [len(DATASETS.build(node)) for node in found.splits.values()] == [5, 2]


def test_an_option_of_the_reader_counts_before_the_images_are_divided(photos: Path, tmp_path: Path) -> None:
    given = "data.train.dataset.class_map={dog: animal}"
    configurator = Configurator(str(photos / "train"), [given], 1, tmp_path)
    configurator.choose_data()
    train, _ = build_datasets(configurator.choices.config())
    assert set(train.classes.names) == {"animal", "cat"}


def test_an_unreadable_image_is_named_with_the_way_out(photos: Path, tmp_path: Path, refuses: Refuses) -> None:
    (photos / "train/train1.jpg").write_bytes(b"nothing")
    with refuses(ValueError):
        Configurator(str(photos), QUICK, 1, tmp_path / "run").run()
    config = Configurator(str(photos), (*QUICK, "data.images.bad_images=skip"), 1, tmp_path / "run").run()
    assert config.data.images.bad_images == "skip"


def test_a_smaller_size_with_more_levels_gets_anchors_for_all_of_them(photos: Path, tmp_path: Path) -> None:
    configurator = Configurator(str(photos), [*QUICK, "train.iterations=2"], 1, tmp_path)
    configurator.choose_data()
    dataset, _ = build_datasets(configurator.choices.config())
    facts = replace(read_facts(dataset), small=0.2)
    rules.choose_network(configurator.choices, Start("resnet18", None, ""), on_gpu=False)
    rules.choose_batch(configurator.choices, facts, 1, on_gpu=False)
    levels = []
    for side in (384, 192):
        configurator.choose_size(facts, rules.size_of(side, facts, ""), dataset)
        levels.append(len(configurator.choices.values["anchors"]["sizes"]))
    assert levels == [3, 4]


def test_config_only_writes_and_trains_nothing(photos: Path, cached_weights: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", str(photos), *QUICK, "--config-only", "--minutes", "0.01", "--output", str(run)]) == 0
    assert sorted(path.name for path in run.iterdir() if not path.name.startswith(".")) == ["auto.yaml"]
    assert load_config(run / "auto.yaml").options("train").iterations == 10


def test_a_config_that_a_person_changed_is_left(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run := tmp_path / "run").mkdir()
    (run / "auto.yaml").write_text("seed: 1\n")
    assert main(["train", str(photos), "--output", str(run)]) == 2
    assert "detkit did not write" in capsys.readouterr().err
    assert (run / "auto.yaml").read_text() == "seed: 1\n"


@pytest.mark.parametrize(
    "words",
    [["--resume"], ["--minutes", "0"], ["--overlay", "focal"]],
    ids=["nothing to resume", "no time", "an overlay"],
)
def test_what_can_not_be_asked_of_data(
    photos: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    assert main(["train", str(photos), "--output", str(tmp_path / "run"), *words]) == 2
    assert steady(capsys.readouterr().err) == snapshot


def test_minutes_need_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", "--minutes", "3"]) == 2
    assert "--minutes goes with a data set; quickstart is a config" in capsys.readouterr().err


def test_without_weights_the_cost_is_told_and_another_network_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise FetchError("no network")

    monkeypatch.setattr(backbones, "torchvision_file", fail)
    start = choose_start(None, on_gpu=False)
    assert start.weights is None
    assert "no network" in start.why
    assert "backbone.weights=FILE" in start.why


def test_the_network_of_a_file_is_in_its_name() -> None:
    assert network_of("some/mobilenet_v3_large-8738ca79.pth") == "mobilenet_v3_large"
    assert network_of("mine.pth") is None


def test_the_run_is_named_after_the_data(tmp_path: Path) -> None:
    (tmp_path / "fruit and veg").mkdir()
    for name in ("data.yaml", "birds.json"):
        (tmp_path / name).write_text("")
    assert run_name(str(tmp_path / "fruit and veg")) == "fruit_and_veg"
    assert run_name(str(tmp_path / "data.yaml")) == tmp_path.name
    assert run_name(str(tmp_path / "birds.json")) == "birds"
