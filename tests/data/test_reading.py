"""All splits of a place: what is done where one of them can't be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkit.cli import main
from detkit.data.datasets.auto import find_data
from detkit.data.reading import read_source
from tests.refusals import Refuses


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A YOLO set whose data.yaml names a test that is not there, as after deleting it."""
    root = tmp_path / "set"
    for split in ("train", "valid"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        Image.new("RGB", (64, 48), (len(split), 0, 0)).save(root / split / "images/a.png")
        (root / split / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]\n"
    )
    return root


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Raises what the command line refuses as ValueError."""
    assert main(words) == 2
    raise ValueError(capsys.readouterr().err)


def test_the_others_are_checked_and_it_is_an_error(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(yolo)]) == 1
    out = capsys.readouterr().out
    assert "error: a split can't be read; only the others are checked (1 case)\n  test: YoloDataset: " in out
    assert "\nval: " in out
    assert out.endswith("but 1 finding is an error\n")


def test_the_others_can_be_converted(
    yolo: Path, tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "convert", str(yolo), str(tmp_path / "out"), "--to", "coco"]
    for more in ([], ["--splits", "test"]):
        with refuses(ValueError):
            refused([*words, *more], capsys)
    assert main([*words, "--splits", "train", "val"]) == 0
    assert {k: len(d) for k, d in read_source(tmp_path / "out").splits.items()} == {"train": 1, "val": 1}


def test_the_others_can_be_shown(
    yolo: Path, tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "show", str(yolo), "--html", str(tmp_path / "s.html")]
    assert main(words) == 0
    with refuses(ValueError):
        refused([*words, "--split", "test"], capsys)


def test_a_set_of_which_no_split_can_be_read_is_refused(yolo: Path, refuses: Refuses) -> None:
    (yolo / "data.yaml").write_text("train: nothing\nval: nowhere\nnames: [cat]\n")
    with refuses(FileNotFoundError):
        read_source(yolo)


def test_lists_that_are_not_there_are_no_splits(tmp_path: Path) -> None:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "JPEGImages/a.png")
    (tmp_path / "Annotations/a.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
        "</object></annotation>"
    )
    data = read_source(tmp_path).splits
    assert list(data) == ["all"]
    assert data["all"].records.annotation(0).boxes.tolist() == [[4, 5, 20, 30]]  # pixels from 1, as in the challenges


def test_a_format_without_splits_counts_as_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detkit.data.datasets.coco import CocoDataset
    from detkit.data.datasets.found import FoundData

    def find(place: Any) -> FoundData:
        return FoundData("COCO JSON", "nothing", {})

    monkeypatch.setattr(CocoDataset, "find", find)
    with pytest.raises(ValueError, match="no data set of a known format"):
        find_data(tmp_path)


def test_a_detector_is_opened_before_any_image(
    yolo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from detkit.data.doctor.subject import Subject

    monkeypatch.setattr(Subject, "of", lambda *_, **__: pytest.fail("images are opened"))
    assert main(["data", "check", str(yolo), "--with", "nothing"]) == 2
    assert "there is no checkpoint or run folder nothing" in capsys.readouterr().err
