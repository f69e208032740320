"""`detkit data check` counts everything that a training would not see."""

from typing import Any

import pytest
from PIL import Image

from detkit.cli import main


def check(folder: Any, capsys: Any, *overrides: str) -> tuple[int, str]:
    code = main(["data", "check", str(folder.config), *overrides])
    return code, capsys.readouterr().out


def test_all_is_well(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = check(folder, capsys)
    assert code == 0
    assert out.splitlines()[-1] == "every image and every object can be used"


def test_lost_objects_are_counted_and_the_verdict_is_not_that_all_can_be_used(
    folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("val", [[[8, 8, 40, 30], [8, 8, 0.8, 30]]])
    code, out = check(folder, capsys)
    assert code == 1
    assert "val.json: 1 of 2 objects never reach the network: 1 by the annotation" in out
    assert out.splitlines()[-1] == "1 object can't reach the network"
    assert "every" not in out.splitlines()[-1]


def test_damaged_images_under_each_policy(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.damage("train", 0)
    code, out = check(folder, capsys)
    assert (code, out.splitlines()[-1]) == (1, "1 image can't be used")
    assert "train0.jpg: not a readable image" in out
    code, out = check(folder, capsys, "data.images.bad_images=skip")
    assert code == 0
    assert "left out: " in out
    assert out.splitlines()[-1] == "1 image or object is left out as configured; all others can be used"
    assert "2 images (0 without objects)" in out
    assert "1 bad image left out: train0.jpg" in out
    code, out = check(folder, capsys, "data.images.bad_images=repair")
    assert code == 0
    assert "1 damaged image repaired:\n    " in out


def test_no_usable_image_is_a_report_not_a_crash(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.new("RGB", (10, 10)).save(folder.file("val", i))
    code, out = check(folder, capsys)
    assert code == 1
    assert "val.json: none of the 3 images can be used" in out
    assert out.splitlines()[-1] == "3 images can't be used"


def test_boxes_that_the_reader_drops_are_counted(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write("train", [[[8, 8, 40, 30], [8, 8, 0, 30]], [[8, 8, 10, -1]]])
    code, out = check(folder, capsys)
    assert code == 1
    assert "2 boxes are unusable and left out of training" in out
    assert out.splitlines()[-1] == "2 boxes can't be used"


def test_what_is_clipped_or_changed_is_named_on_stdout_once(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write("train", [[[8, 8, 4000, 30]], [[8, 8, 10, 10]]])
    code = main(["data", "check", str(folder.config), "data.classes.class_map={cat: animal}"])
    told = capsys.readouterr()
    assert (code, told.err) == (0, "")
    assert told.out.count("1 box extends beyond the image and is clipped for training:\n    image") == 1
    assert "box 1 [8.0, 8.0, 4008.0, 38.0]: xmax=4008 in an image" in told.out
    assert "cat -> animal: 2, the first in image 1 (train0.jpg), box 1" in told.out
    assert "evaluation uses the 2 boxes of the file, of which 1 differs in training" in told.out
