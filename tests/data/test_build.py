"""Data sets of a config: the training's classes rule, and data.classes is for both splits."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detkit.config import load_config
from detkit.config.config import Config
from detkit.data.build import build_dataset, build_datasets
from tests.data.coco_files import write_coco
from tests.refusals import Refuses

BASE = Path(__file__).parents[2] / "configs" / "quickstart" / "shapes.yaml"
TRAIN = {1: "cat", 2: "dog", 3: "bird"}


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., Config]:
    """A config whose training has TRAIN and whose validation is given as (categories, boxes)."""

    def make(
        categories: dict[int, str],
        boxes: list[tuple[int, int]],
        *overrides: str,
        train: list[tuple[int, int]] | tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = (
            (1, 1),
            (1, 2),
            (2, 3),
        ),
    ) -> Config:
        train_set = write_coco(tmp_path, "train.json", TRAIN, list(train))
        val_set = write_coco(tmp_path, "val.json", categories, boxes)
        text = f"_base_: {BASE}\ndata:\n"
        for split, where in (("train", train_set), ("val", val_set)):
            arguments = ", ".join(f"{k}: {v}" for k, v in where.items())
            text += f"  {split}:\n    dataset: {{type: CocoDataset, {arguments}}}\n"
        (tmp_path / "config.yaml").write_text(text)
        return load_config(tmp_path / "config.yaml", list(overrides))

    return make


def test_validation_follows_the_training_by_name(config_of: Callable[..., Config]) -> None:
    train, val = build_datasets(config_of({7: "dog", 0: "cat"}, [(1, 7), (2, 0)]))
    assert val.classes.names == train.classes.names == ("cat", "dog", "bird")
    assert val.classes.ids == (0, 7, 3)
    assert val.records.labels.tolist() == [1, 0]


def test_a_foreign_object_is_refused_and_each_way_out_works(refuses: Refuses, config_of: Callable[..., Config]) -> None:
    foreign = ({1: "cat", 2: "cow"}, [(1, 1), (2, 2)])
    with refuses(ValueError):
        build_datasets(config_of(*foreign))
    _, ignored = build_datasets(config_of(*foreign, "data.classes.ignore_classes=[cow]"))
    assert ignored.records.is_ignore.tolist() == [False, True]
    _, mapped = build_datasets(config_of(*foreign, "data.classes.class_map={cow: dog}"))
    assert mapped.records.labels.tolist() == [0, 1]
    _, selected = build_datasets(config_of(*foreign, "data.val.dataset.class_names=[cat]"))
    assert selected.records.labels.tolist() == [0]


def test_classes_of_both_splits_are_set_once(config_of: Callable[..., Config]) -> None:
    config = config_of(
        {7: "dog", 0: "cat"}, [(1, 7), (2, 0)], "data.classes={class_names: [dog, cat], class_map: {bird: cat}}"
    )
    train, val = build_datasets(config)
    assert train.classes.names == val.classes.names == ("dog", "cat")
    assert train.records.labels.tolist() == [1, 0, 1]
    assert val.records.labels.tolist() == [0, 1]


def test_a_name_that_neither_split_has_is_a_slip(refuses: Refuses, config_of: Callable[..., Config]) -> None:
    with refuses(ValueError):
        build_datasets(config_of(TRAIN, [], "data.classes.class_map={brid: cat}"))


def test_images_that_are_empty_then_are_left_out_if_none_are_kept(
    config_of: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(TRAIN, [(1, 1)], "data.classes.class_names=[cat]", "data.train.dataset.keep_empty=false")
    with caplog.at_level(logging.WARNING, logger="detkit"):
        train, _ = build_datasets(config)
    assert train.records.image_ids.tolist() == [1]
    assert train.checked_image(0).size == (60, 40)
    assert "1 image without objects is left out" in train.summary()
    assert "1 image without objects is left out (keep_empty: false):\n  " in caplog.text


def test_a_class_without_an_object_to_learn_from_is_warned_of(
    config_of: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        build_datasets(config_of(TRAIN, [(1, 1)], train=[(1, 1), (2, 2)]))
    assert "train.json: no training object of bird" in caplog.text


def test_a_trained_detectors_classes_rule_an_evaluation(config_of: Callable[..., Config]) -> None:
    from detkit.structures import ClassMap

    config = config_of({7: "dog"}, [(1, 7)], "data.classes.class_map={bird: cat}")
    val = build_dataset(config, "val", ClassMap(("cat", "dog"), (1, 2)))
    assert val.classes == ClassMap(("cat", "dog"), (1, 7))
    assert val.records.labels.tolist() == [1]


def test_a_data_set_alone_has_its_own_classes(config_of: Callable[..., Config]) -> None:
    assert build_dataset(config_of({7: "dog"}, [(1, 7)]), "val").classes.names == ("dog",)


def test_validation_may_ignore_all_that_its_file_has_but_training_must_keep_a_class(
    refuses: Refuses,
    config_of: Callable[..., Config],
) -> None:
    _, val = build_datasets(config_of({5: "cow"}, [(1, 5), (2, 5)], "data.val.dataset.ignore_classes=[cow]"))
    assert val.classes.names == ("cat", "dog", "bird")
    assert val.records.is_ignore.tolist() == [True, True]
    config = config_of({1: "cat"}, [(1, 1)], "data.train.dataset.ignore_classes=[cat, dog, bird]")
    for build in (lambda: build_datasets(config), lambda: build_dataset(config, "train")):
        with refuses(ValueError):
            build()
