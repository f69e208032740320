from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detkit.structures import ClassMap, Detections, Targets
from detkit.visualize import class_color, picture_grid
from tests.refusals import Refuses

CLASSES = ClassMap(("cat", "dog"), (1, 2))


def row(height: int, width: int) -> tuple[np.ndarray, Targets, Detections]:
    """Ground truth is a cat, the prediction a dog."""
    box = torch.tensor([[10.0, 20.0, 60.0, 50.0]])
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    return image, Targets(box, torch.tensor([0])), Detections(box, torch.tensor([0.9]), torch.tensor([1]))


def columns_of(sheet: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.nonzero((sheet == color).all(axis=2))[1]


def test_ground_truth_is_left_of_the_prediction(tmp_path: Path) -> None:
    path = picture_grid([row(80, 100)], CLASSES, tmp_path / "new" / "grid.png", tile=200)
    sheet = np.asarray(Image.open(path))
    legend = 24 + 24
    below = sheet[legend:]
    middle = sheet.shape[1] / 2
    assert columns_of(below, class_color(0)).max() < middle < columns_of(below, class_color(1)).min()


def test_pictures_of_several_shapes_make_a_sheet_of_rows_and_columns(tmp_path: Path) -> None:
    rows = [row(80, 100), row(120, 70), row(64, 64)]
    two = Image.open(picture_grid(rows, CLASSES, tmp_path / "two.png", tile=200, title="title"))
    one = Image.open(picture_grid(rows, CLASSES, tmp_path / "one.png", tile=200, columns=1))
    assert two.width > 1.8 * one.width
    assert two.height < one.height


def test_many_classes_have_a_short_legend(tmp_path: Path) -> None:
    many = ClassMap(tuple(f"class number {k}" for k in range(80)), tuple(range(80)))
    short = Image.open(picture_grid([row(80, 100)], CLASSES, tmp_path / "a.png"))
    long = Image.open(picture_grid([row(80, 100)], many, tmp_path / "b.png"))
    assert short.width == long.width
    assert short.height < long.height < short.height + 200


def test_no_picture_is_an_error(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        picture_grid([], CLASSES, tmp_path / "grid.png")
