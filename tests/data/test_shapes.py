from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.cli import main
from detkit.data.datasets.coco import CocoDataset
from detkit.data.datasets.shapes import ShapesDataset
from tests.refusals import Refuses


@pytest.fixture(scope="module")
def many() -> ShapesDataset:
    return ShapesDataset(num_images=150)


def test_the_same_seed_is_the_same_data(many: ShapesDataset) -> None:
    again = ShapesDataset(num_images=20)
    assert np.array_equal(again.pixels, many.pixels[:20])
    assert np.array_equal(again.records.boxes, many.records.boxes[: len(again.records.boxes)])
    assert not np.array_equal(ShapesDataset(num_images=5, seed=1).pixels, many.pixels[:5])
    assert not np.array_equal(ShapesDataset(num_images=5, split="val").pixels, many.pixels[:5])


def test_it_is_not_trivial(many: ShapesDataset) -> None:
    records = many.records
    sides = (records.boxes[:, 2:] - records.boxes[:, :2]).max(axis=1)[~records.is_ignore]
    assert len(many.classes) >= 6
    assert set(records.labels.tolist()) == set(range(len(many.classes)))
    assert (sides < 16).mean() > 0.1
    assert (sides > 64).mean() > 0.05
    counts = np.diff(records.ends, prepend=0)
    assert (counts == 0).any()
    assert (counts >= 6).any()
    assert records.is_ignore.any()
    overlapping = 0
    for i in range(len(many)):
        b = records.annotation(i).boxes
        inter = (
            (np.minimum(b[:, None, 2:], b[None, :, 2:]) - np.maximum(b[:, None, :2], b[None, :, :2])).clip(0).prod(2)
        )
        overlapping += int((inter > 0).sum() - len(b))
    assert overlapping > 20


def test_boxes_are_tight_around_what_is_drawn() -> None:
    # The image with and without its last object differs exactly inside that object's box.
    from detkit.data.datasets.scene import Scene, add_object

    for seed in range(20):
        before = np.full((96, 96, 3), 128, np.uint8)
        scene = Scene(before.copy())
        add_object(np.random.default_rng(seed), scene, np.full((96, 96), -1, np.int16), [])
        changed = np.abs(scene.pixels.astype(int) - before).sum(axis=2) > 60
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.array(scene.boxes[0]) - tight).max() <= 1.5


def test_objects_stay_mostly_visible_and_out_of_crowds() -> None:
    from detkit.data.datasets.scene import CROWD, Scene, add_object, leaves_enough

    owner = np.array([[0] * 10, [-1] * 10], np.int16)
    assert leaves_enough(owner[0, :3], owner, [10])
    assert not leaves_enough(owner[0, :4], owner, [10])
    # A third of it was covered before: nothing more may go.
    assert not leaves_enough(owner[0, :1], owner, [15])
    for seed in range(5):
        scene = Scene(np.zeros((96, 96, 3), np.uint8))
        add_object(np.random.default_rng(seed), scene, np.full((96, 96), CROWD, np.int16), [])
        assert not scene.boxes
        assert not scene.pixels.any()


def test_it_is_written_in_coco_layout_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make-shapes", str(tmp_path / "shapes"), "--train", "6", "--val", "3", "--size", "64"]) == 0
    assert "CocoDataset" in capsys.readouterr().out
    folder = tmp_path / "shapes"
    made = ShapesDataset(num_images=6, size=64)
    read = CocoDataset(annotations=str(folder / "annotations/instances_train.json"), images=str(folder / "train"))
    assert read.classes == made.classes
    for name in ("boxes", "labels", "is_ignore", "ends", "image_ids", "area", "sizes"):
        assert np.array_equal(getattr(read.records, name), getattr(made.records, name)), name
    assert np.array_equal(np.asarray(read.load_image(2)), made.pixels[2])
    assert main(["data", "make-shapes", str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(("argument", "value"), [("num_images", 0), ("size", 10)])
def test_senseless_arguments_are_named(refuses: Refuses, argument: Any, value: Any) -> None:
    with refuses(ValueError):
        ShapesDataset(**{argument: value})
