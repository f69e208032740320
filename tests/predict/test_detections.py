"""What users do with the detections of an image."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.predict.detections import Detection, Detections
from detkit.structures import ClassMap
from tests.refusals import Refuses

CLASSES = ClassMap(("cat", "dog"), (7, 3))
BOXES = [[10.0, 20.0, 30.0, 60.0], [1.0, 2.0, 5.0, 4.0], [0.0, 0.0, 8.0, 8.0]]


@pytest.fixture
def found() -> Detections:
    """Three detections in a grey image."""
    image = np.full((80, 100, 3), 90, np.uint8)
    return Detections(torch.tensor(BOXES), torch.tensor([0.9, 0.6, 0.25]), torch.tensor([1, 0, 1]), CLASSES, image)


def test_names_and_single_detections(found: Detections) -> None:
    assert found.names == ["dog", "cat", "dog"]
    assert [d.name for d in found] == found.names
    score: Any = pytest.approx(0.9)
    assert found[0] == Detection((10.0, 20.0, 30.0, 60.0), score, 1, "dog")
    assert found[-1] == list(found)[2] == found[np.int64(2)] == found[torch.tensor(2)]
    with pytest.raises(IndexError):
        found[3]
    assert repr(found) == "<3 detections: dog 0.90, cat 0.60, dog 0.25>"


@pytest.mark.parametrize(
    ("which", "rows"),
    [
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([False, True, False]), [1]),
        ([True, True, False], [0, 1]),
        (torch.tensor([2, 0]), [2, 0]),
        ([1], [1]),
        ([], []),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
    ],
)
def test_masks_indices_and_slices_select(found: Detections, which: Any, rows: list[int]) -> None:
    chosen = found[which]
    assert chosen.boxes.tolist() == [BOXES[row] for row in rows]
    assert list(chosen) == [found[row] for row in rows]
    assert chosen.image.size == (100, 80)


def test_a_mask_of_another_length_is_refused(refuses: Refuses, found: Detections) -> None:
    with refuses(IndexError):
        found[torch.tensor([True, False])]


def test_to_keeps_what_belongs_to_the_image(found: Detections) -> None:
    moved = found.to("meta")
    assert isinstance(moved, Detections)
    assert (moved.boxes.device.type, moved.classes) == ("meta", CLASSES)


def test_draw_leaves_the_image_and_draws_from_a_score_on(found: Detections) -> None:
    everything, best = np.asarray(found.draw()), np.asarray(found.draw(min_score=0.5))
    assert everything.shape == best.shape == (80, 100, 3)
    assert (everything != best).any()
    assert (np.asarray(found.image) == 90).all()


def test_an_image_file_is_read_when_it_is_drawn(found: Detections, tmp_path: Path) -> None:
    Image.fromarray(np.full((80, 100, 3), 50, np.uint8)).save(tmp_path / "a.png")
    of_file = Detections(found.boxes, found.scores, found.labels, CLASSES, tmp_path / "a.png")
    assert of_file.path == str(tmp_path / "a.png")
    assert found.path is None
    assert np.asarray(of_file[:0].draw()).max() == 50
    (tmp_path / "b.png").unlink(missing_ok=True)
    gone = Detections(found.boxes, found.scores, found.labels, CLASSES, str(tmp_path / "b.png"))
    assert gone.names == found.names
    with pytest.raises(FileNotFoundError):
        gone.draw()


def test_to_coco_has_the_ids_of_the_training_data(found: Detections) -> None:
    assert found.to_coco()[0]["image_id"] == 0
    first = found.to_coco(image_id=5)[0]
    assert first == {
        "image_id": 5, "category_id": 3, "category_name": "dog", "bbox": [10.0, 20.0, 20.0, 40.0],
        "score": pytest.approx(0.9),
    }  # fmt: skip


def test_to_pandas(found: Detections) -> None:
    pytest.importorskip("pandas")
    table = found.to_pandas()
    assert list(table.columns) == ["x1", "y1", "x2", "y2", "score", "label", "name"]
    assert table[table["name"] == "dog"]["x2"].tolist() == [30.0, 8.0]
    assert len(found[:0].to_pandas()) == 0


def test_to_supervision(found: Detections) -> None:
    pytest.importorskip("supervision")
    there = found.to_supervision()
    assert there.xyxy.tolist() == BOXES
    assert there.data["class_name"].tolist() == found.names
    assert there.class_id is not None
    assert there.class_id.tolist() == [1, 0, 1]
    assert len(found[:0].to_supervision()) == 0


def test_a_missing_library_is_named(refuses: Refuses, found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with refuses(ImportError):
        found.to_pandas()
    with refuses(ImportError):
        found.to_supervision()
