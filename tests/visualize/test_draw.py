from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.structures import ClassMap, Detections, Targets
from detkit.visualize import class_color, draw_detections
from detkit.visualize.colors import linear, text_color
from tests.refusals import Refuses

CLASSES = ClassMap(("cat", "dog"), (1, 2))
BOX = [40.0, 50.0, 140.0, 120.0]
GREY = np.full((200, 240, 3), 128, dtype=np.uint8)


def detections(scores: list[float], labels: list[int], box: list[float] = BOX) -> Detections:
    return Detections(torch.tensor([box] * len(scores)).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels))


def pixels(picture: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Smallest rectangle (left, top, right, bottom) around all pixels of a color."""
    rows, columns = np.nonzero((np.asarray(picture) == color).all(axis=2))
    assert len(rows), f"no pixel of {color}"
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_the_box_is_drawn_where_it_is_in_its_class_color() -> None:
    picture = draw_detections(GREY, detections([0.9], [1]), CLASSES)
    left, _, right, bottom = pixels(picture, class_color(1))
    assert (left, right, bottom) == (40, 140, 120)
    assert picture.size == (240, 200)
    assert (GREY == 128).all()


def test_array_tensor_and_picture_are_drawn_alike() -> None:
    found = detections([0.9], [0])
    expected = np.asarray(draw_detections(GREY, found, CLASSES))
    for image in (torch.from_numpy(GREY).permute(2, 0, 1), Image.fromarray(GREY)):
        np.testing.assert_array_equal(np.asarray(draw_detections(image, found, CLASSES)), expected)


def test_low_scores_are_left_out(refuses: Refuses) -> None:
    picture = draw_detections(GREY, detections([0.9, 0.2], [0, 1]), CLASSES, min_score=0.5)
    pixels(picture, class_color(0))
    with refuses(AssertionError):
        pixels(picture, class_color(1))


def test_scaling_scales_the_boxes() -> None:
    picture = draw_detections(GREY, detections([0.9], [1]), CLASSES, side=480)
    assert picture.size == (480, 400)
    left, _, right, bottom = pixels(picture, class_color(1))
    assert (left, right, bottom) == (80, 280, 240)


def test_names_of_one_spot_do_not_cover_each_other() -> None:
    """Two frames in one place, of which one shows; but both name tags are whole."""
    alone = np.asarray(draw_detections(GREY, detections([0.9], [0]), CLASSES))
    both = np.asarray(draw_detections(GREY, detections([0.9, 0.8], [0, 1]), CLASSES))

    def tag(picture: np.ndarray, label: int) -> int:
        """Pixels of a class's color above and below the frame."""
        hits = (picture == class_color(label)).all(axis=2)
        return int(hits[:50].sum() + hits[121:].sum())

    assert tag(alone, 0) > 200
    assert tag(both, 0) == tag(alone, 0)
    assert tag(both, 1) > 200


@pytest.mark.parametrize("box", [[-30.0, -30.0, 500.0, 500.0], [90.0, 90.0, 60.0, 60.0], [300.0, 300.0, 310.0, 310.0]])
def test_boxes_outside_inverted_or_larger_than_the_image_do_no_harm(box: list[float]) -> None:
    picture = draw_detections(GREY, detections([0.9], [0], box), CLASSES)
    pixels(picture, class_color(0))


def test_targets_show_names_and_hatched_ignore_regions() -> None:
    ignore = torch.tensor([[150.0, 100.0, 220.0, 190.0]])
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), ignore)
    changed = (np.asarray(draw_detections(GREY, empty, CLASSES)) != 128).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (150, 100, 219, 189)
    assert 0.1 < changed[100:190, 150:220].mean() < 0.7
    picture = draw_detections(GREY, Targets(torch.tensor([BOX]), torch.tensor([1])), CLASSES)
    pixels(picture, class_color(1))


def test_nothing_found_leaves_the_image_alone() -> None:
    np.testing.assert_array_equal(np.asarray(draw_detections(GREY, detections([], []), CLASSES)), GREY)


def test_colors_of_many_classes_differ() -> None:
    assert len({class_color(k) for k in range(80)}) == 80
    assert class_color(300) == class_color(300)


def lab(colors: Any) -> Any:
    """Linear light (N, 3) -> CIELAB."""
    xyz = colors @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / [0.95047, 1.0, 1.08883])
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
"""Machado, Oliveira and Fernandes 2009, table 1, severity 1."""


@pytest.mark.parametrize("sight", SIGHT)
def test_the_colors_of_sixteen_classes_are_apart_for_everyone(sight: str) -> None:
    light = np.array([[linear(value) for value in class_color(k)] for k in range(16)])
    seen = lab(np.clip(light @ np.array(SIGHT[sight]).T, 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1000 * np.eye(16)
    assert apart.min() > 15


def test_the_name_of_a_class_can_be_read_on_its_color() -> None:
    for label in range(100):
        light = [sum(w * linear(v) for w, v in zip((0.2126, 0.7152, 0.0722), c, strict=True))
                 for c in (class_color(label), text_color(class_color(label)))]  # fmt: skip
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 3.0  # WCAG for large letters


@pytest.mark.parametrize(("size", "width"), [((100, 80), 2), ((1000, 600), 4), ((4000, 3000), 16)])
def test_lines_are_as_wide_as_the_image_is_large(size: tuple[int, int], width: int) -> None:
    box = [0.2 * size[0], 0.4 * size[1], 0.9 * size[0], 0.9 * size[1]]
    picture = np.asarray(draw_detections(Image.new("RGB", size), detections([0.9], [0], box), CLASSES))
    row = picture[int(0.7 * size[1])]
    assert (row == class_color(0)).all(axis=1).sum() == 2 * width
