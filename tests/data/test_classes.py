"""Names decide which class an object has: in a split, and between splits."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from detkit.data.datasets.classes import ClassOptions
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.problems import IGNORED, RENAMED, UNSELECTED
from detkit.data.datasets.shapes import ShapesDataset
from detkit.structures import ClassMap
from tests.data.coco_files import write_coco
from tests.refusals import Refuses

ANIMALS = {90: "dog", 1: "cat", 3: "bird"}
BOXES = [(1, 90), (1, 1), (1, 90), (2, 3)]


@pytest.fixture
def animals(tmp_path: Path) -> dict[str, Any]:
    return write_coco(tmp_path, "animals.json", ANIMALS, BOXES)


def labels(data: CocoDataset, index: int = 0) -> list[str]:
    a = data.records.annotation(index)
    return [data.classes.names[k] if k >= 0 else "any" for k in a.labels.tolist()]


def test_class_names_select_and_order_and_what_they_leave_out_is_counted(
    animals: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = CocoDataset(**animals, class_names=["dog", "cat"])
    assert data.classes == ClassMap(("dog", "cat"), (90, 1))
    assert data.records.labels.tolist() == [0, 1, 0]
    assert data.records.ends.tolist() == [3, 3]
    assert data.problems.by_kind[UNSELECTED].examples == ["bird: 1, the first in image 2 (2.png), box 1"]
    assert "1 object is left out because class_names does not list its class:\n  bird: 1" in caplog.text
    assert data.records.truth.labels.tolist() == [0, 1, 0]


def test_a_stated_class_that_the_file_lacks_is_a_class_without_objects(
    animals: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        data = CocoDataset(**animals, class_names=["cat", "elephant", "dog", "bird"])
    assert data.classes.names == ("cat", "elephant", "dog", "bird")
    assert data.classes.ids == (1, 91, 90, 3)
    assert "no object of the classes elephant of class_names" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_names": ["dgo", "cat", "bird"]},
        {"class_names": ["Dog", "cat"]},
        {"class_names": ["car", "bus"]},
        {"class_map": {"dog": " "}},
        {"class_names": []},
        {"class_names": ["cat", "cat"]},
        {"class_names": ["cat"], "ignore_classes": ["cat"]},
        {"class_map": {"Cat": "dog"}},
        {"ignore_classes": ["fish"]},
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(refuses: Refuses, animals: Any, arguments: Any) -> None:
    with refuses(ValueError):
        CocoDataset(**animals, **arguments)


def test_class_map_renames_and_merges(animals: Any) -> None:
    data = CocoDataset(**animals, class_map={"dog": "pet", "cat": "pet"})
    assert data.classes == ClassMap(("pet", "bird"), (1, 3))
    assert data.records.labels.tolist() == [0, 0, 0, 1]
    into = CocoDataset(**animals, class_map={"cat": "dog"})
    assert into.classes == ClassMap(("dog", "bird"), (90, 3))
    swapped = CocoDataset(**animals, class_map={"cat": "dog", "dog": "cat"})
    assert labels(swapped) == ["cat", "dog", "cat"]


def test_ignored_classes_are_regions_that_count_for_every_class(animals: Any) -> None:
    from detkit.evaluate.coco import ground_truth_from

    data = CocoDataset(**animals, ignore_classes=["dog"])
    assert data.classes.names == ("cat", "bird")
    a = data.records.annotation(0)
    assert a.is_ignore.tolist() == [True, False, True]
    assert data.problems.count(IGNORED) == 2
    truth = ground_truth_from(data)
    assert truth.offsets.tolist() == [0, 5, 6]
    assert truth.labels.tolist() == [0, 1, 0, 0, 1, 1]
    assert truth.crowd.tolist() == [True, True, False, True, True, False]
    assert truth.xywh[:2].tolist() == [[1, 5, 10, 10]] * 2


def test_all_three_work_together_on_names_after_the_map(animals: Any) -> None:
    data = CocoDataset(**animals, class_map={"dog": "beast"}, ignore_classes=["beast"], class_names=["bird"])
    assert data.classes.names == ("bird",)
    assert data.records.is_ignore.tolist() == [True, True, False]
    assert data.problems.count(UNSELECTED) == 1


def test_images_that_a_selection_empties_follow_keep_empty(animals: Any) -> None:
    assert CocoDataset(**animals, class_names=["bird"], keep_empty=False).records.image_ids.tolist() == [2]


def test_another_splits_classes_are_taken_over_by_name(tmp_path: Path) -> None:
    val = CocoDataset(**write_coco(tmp_path, "val.json", {0: "cat", 1: "dog"}, [(1, 0), (2, 1), (2, 0)]))
    val.use_classes(ClassMap(("dog", "fish", "cat"), (1, 2, 3)))
    assert val.classes.names == ("dog", "fish", "cat")
    assert val.classes.ids == (1, 2, 0)  # its own ids, and the other's where that is free
    assert val.records.labels.tolist() == [2, 0, 2]
    assert val.records.truth.labels.tolist() == [2, 0, 2]


def test_a_class_without_objects_that_only_this_split_has_is_let_go(tmp_path: Path) -> None:
    val = CocoDataset(**write_coco(tmp_path, "val.json", {1: "cat", 2: "dog"}, [(1, 1)]))
    val.use_classes(ClassMap(("cat",), (7,)))
    assert val.classes == ClassMap(("cat",), (1,))


def test_objects_of_a_class_that_only_this_split_has_are_an_error_with_the_way_out(
    refuses: Refuses, tmp_path: Path
) -> None:
    val = CocoDataset(**write_coco(tmp_path, "val.json", {1: "cat", 2: "Dog"}, [(1, 1), (2, 2), (2, 2)]))
    with refuses(ValueError):
        val.use_classes(ClassMap(("cat", "dog"), (1, 2)))


def test_every_data_set_can_be_given_classes() -> None:
    data = ShapesDataset(num_images=20)
    before = data.records.labels.tolist()
    data.choose_classes(ClassOptions(class_map={"circle": "round", "ring": "round"}, ignore_classes=["star"]))
    assert data.classes.names[0] == "round"
    assert "star" not in data.classes.names
    assert len(data.records.labels) == len(before)
    assert data.records.is_ignore[[k == 1 for k in before]].all()


def test_renamed_and_merged_objects_are_counted(animals: Any) -> None:
    data = CocoDataset(**animals, class_map={"dog": "cat"})
    assert data.problems.by_kind[RENAMED].count == 2
    assert data.problems.by_kind[RENAMED].examples == ["dog -> cat: 2, the first in image 1 (1.png), box 1"]


@pytest.mark.parametrize(
    "stranger", ["cat ", "traffic: red,left", "Yes", "01", "{owl}", "it's", 'a "b"', "# 1", "eis bär"]
)
def test_the_ways_out_for_a_class_of_validation_alone_can_be_pasted(
    refuses: Refuses, tmp_path: Path, stranger: str
) -> None:
    train = CocoDataset(**write_coco(tmp_path, "train.json", {1: "cat", 2: "dog"}, [(1, 1), (1, 2)]))
    where = write_coco(tmp_path, "val.json", {1: "cat", 2: stranger}, [(1, 1), (1, 2)])
    with refuses(ValueError) as told:
        CocoDataset(**where).use_classes(train.classes)
    for key, opening in (("ignore_classes", r"\["), ("class_map", r"\{")):
        value = re.search(rf"{key}: ({opening}.*?[\]}}])(?=, )", str(told.value))[1].replace(
            "NAME_THAT_IS_THERE", "dog"
        )
        data = CocoDataset(**where, **{key: yaml.safe_load(value)})
        data.use_classes(train.classes)
        assert data.classes.names == ("cat", "dog")
