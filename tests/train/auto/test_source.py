from pathlib import Path

import pytest

from detkit.train.auto.source import find_splits, names_data
from tests.refusals import Refuses
from tests.train.auto.conftest import add_image


def test_folders_and_annotation_files_are_data_and_configs_are_not(photos: Path, tmp_path: Path) -> None:
    (data := tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    (config := tmp_path / "mine.yaml").write_text("_base_: quickstart\n")
    (table := tmp_path / "train.json").write_text("{}")
    assert all(map(names_data, (str(photos), str(data), str(table))))
    assert not any(map(names_data, (str(config), "quickstart", "not_there", str(tmp_path / "not_there.yaml"))))


@pytest.mark.parametrize("text", ["nc: 2\ntrain: images\n", "val: images\nnames: [cat]\n"])
def test_a_data_yaml_with_something_missing_is_data(tmp_path: Path, text: str) -> None:
    (data := tmp_path / "data.yaml").write_text(text)
    assert names_data(str(data))


def test_a_config_by_its_name_goes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert not names_data("quickstart")
    assert names_data("./quickstart")


def test_the_folder_of_a_run_is_no_data(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "metrics.jsonl").write_text("")
    with refuses(IsADirectoryError):
        names_data(str(tmp_path))


def test_val_goes_before_test_and_test_is_told(photos: Path) -> None:
    splits = find_splits(str(photos))
    assert splits.val is not None
    assert splits.val["root"].endswith("photos/test")
    assert "test is evaluated on" in splits.notes[-1]
    add_image(photos / "valid", "v", [("cat", 1, 1, 30, 30)])
    again = find_splits(str(photos))
    assert again.val is not None
    assert again.val["root"].endswith("photos/valid")


def test_several_parts_of_val_are_told(photos: Path) -> None:
    for name in ("val1", "val2"):
        add_image(photos / name, name, [("cat", 1, 1, 30, 30)])
    assert find_splits(str(photos)).notes[-1] == (
        "val is in several parts, none of which is all of it (val1, val2): test is evaluated on"
    )


def test_a_path_that_no_config_can_hold(photos: Path, refuses: Refuses) -> None:
    with refuses(ValueError):
        find_splits(str(photos.rename(photos.with_name("photos ${x}"))))


def test_a_set_without_a_training_split(tmp_path: Path, refuses: Refuses) -> None:
    for split in ("val", "test"):
        add_image(tmp_path / split, split, [("cat", 1, 1, 30, 30)])
    with refuses(ValueError):
        find_splits(str(tmp_path))
