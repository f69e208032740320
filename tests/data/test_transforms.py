from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.data.transforms.base import Transform, apply_transforms, transform_image
from detkit.data.transforms.geometry import RandomCrop, shortest_edge_size
from detkit.registry import TRANSFORMS
from detkit.structures import Targets
from tests.refusals import Refuses

BOXES = torch.tensor([[10.0, 5, 30, 15], [40, 20, 60, 40], [0, 0, 20, 20]])
LABELS = torch.tensor([4, 2, 1])
IGNORE = torch.tensor([False, False, True])


def picture(width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray((np.arange(height * width * 3) % 251).astype(np.uint8).reshape(height, width, 3))


def run(*nodes: dict[str, Any], image: None = None) -> tuple[torch.Tensor, Targets]:
    return apply_transforms([TRANSFORMS.build(n) for n in nodes], image or picture(), BOXES, LABELS, IGNORE)


def test_no_transform_only_sorts_out_the_ignore_regions() -> None:
    image, targets = run()
    assert image.shape == (3, 40, 60)
    assert torch.equal(image.permute(1, 2, 0), torch.tensor(np.asarray(picture())))
    assert targets.boxes.tolist() == BOXES[:2].tolist()
    assert targets.labels.tolist() == [4, 2]
    assert targets.ignore.tolist() == [[0, 0, 20, 20]]


def test_flips_move_boxes_and_ignore_regions() -> None:
    image, targets = run({"type": "RandomHorizontalFlip", "p": 1.0})
    assert torch.equal(image.flip(2).permute(1, 2, 0), torch.tensor(np.asarray(picture())))
    assert targets.boxes.tolist() == [[30, 5, 50, 15], [0, 20, 20, 40]]
    assert targets.ignore.tolist() == [[40, 0, 60, 20]]
    _, targets = run({"type": "RandomVerticalFlip", "p": 1.0})
    assert targets.boxes.tolist() == [[10, 25, 30, 35], [40, 0, 60, 20]]


def test_resizes_scale_boxes() -> None:
    image, targets = run({"type": "Resize", "height": 80, "width": 30})
    assert image.shape == (3, 80, 30)
    assert targets.boxes.tolist() == [[5, 10, 15, 30], [20, 40, 30, 80]]
    image, targets = run({"type": "ResizeShortestEdge", "short": 20, "max_size": 100})
    assert image.shape == (3, 20, 30)
    assert targets.boxes.tolist() == [[5, 2.5, 15, 7.5], [20, 10, 30, 20]]


def test_shortest_edge_rounds_to_the_nearest_pixel_and_keeps_the_longest_in_bounds() -> None:
    assert shortest_edge_size(480, 640, 320, 1333) == (320, 427)  # 426.67
    assert shortest_edge_size(480, 640, 800, 1000) == (750, 1000)
    assert shortest_edge_size(640, 480, 240, 320) == (320, 240)


def test_shortest_edge_rounds_where_detectron2_does() -> None:
    # One multiplication in place of two gives 667, 171 and 236 here.
    assert shortest_edge_size(704, 1408, 800, 1333) == (666, 1333)
    assert shortest_edge_size(275, 2150, 800, 1333) == (170, 1333)
    assert shortest_edge_size(143, 806, 800, 1333) == (237, 1333)


def test_one_of_several_sizes_is_drawn() -> None:
    torch.manual_seed(0)
    node = {"type": "ResizeShortestEdge", "short": [20, 30]}
    assert {run(node)[0].shape[1] for _ in range(20)} == {20, 30}


def test_boxes_outside_a_crop_are_dropped_with_their_labels() -> None:
    torch.manual_seed(0)
    node = {"type": "RandomCrop", "height": 20, "width": 20}
    for _ in range(20):
        image, targets = run(node)
        assert image.shape == (3, 20, 20)
        assert len(targets.boxes) == len(targets.labels)
        for boxes in (targets.boxes, targets.ignore):
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert bool((boxes >= 0).all())
            assert bool((boxes <= 20).all())


@pytest.mark.parametrize(
    "node",
    [
        {"type": "RandomIoUCrop"},
        {"type": "RandomZoomOut", "p": 1.0},
        {"type": "ScaleJitter", "height": 50, "width": 50},
        {"type": "ColorJitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
        {"type": "RandomPhotometricDistort", "p": 1.0},
    ],
    ids=lambda n: n["type"],
)
def test_random_ones_keep_boxes_valid_and_come_with_no_objects(node: dict[str, Any]) -> None:
    torch.manual_seed(0)
    for _ in range(10):
        image, targets = run(node)
        height, width = image.shape[1:]
        assert len(targets.boxes) == len(targets.labels)
        assert bool((targets.boxes[:, 2:] - targets.boxes[:, :2] >= 1).all())
        assert bool((targets.boxes <= torch.tensor([width, height, width, height])).all())
    assert transform_image([TRANSFORMS.build(node)], picture()).dtype == torch.uint8


def test_the_iou_crop_keeps_what_is_left_of_an_ignore_region() -> None:
    # The region's centre is often outside of the window, and a part of it inside.
    boxes = torch.tensor([[0.0, 0, 20, 40], [10, 0, 60, 40]])
    node = {"type": "RandomIoUCrop", "max_scale": 0.4}
    cut, noise = 0, np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for seed in range(40):
        torch.manual_seed(seed)
        image, targets = apply_transforms(
            [TRANSFORMS.build(node)], Image.fromarray(noise), boxes, LABELS[:2], IGNORE[1:]
        )
        if image.shape[1:] == (40, 60):
            continue
        left, top = window_of(image, torch.tensor(noise).permute(2, 0, 1))
        inside = (boxes[1] - torch.tensor([left, top, left, top])).clamp(min=0)
        inside = inside.minimum(torch.tensor([image.shape[2], image.shape[1]]).repeat(2))
        if (inside[2:] - inside[:2] >= 1).all():
            cut += 1
            assert targets.ignore.tolist() == [inside.tolist()]
    assert cut > 5


def test_the_iou_crop_drops_objects_whose_centre_is_outside() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    dropped = 0
    for seed in range(40):
        torch.manual_seed(seed)
        image, targets = apply_transforms(
            [TRANSFORMS.build({"type": "RandomIoUCrop"})],
            Image.fromarray(noise),
            BOXES,
            LABELS,
            IGNORE & False,
        )
        left, top = window_of(image, torch.tensor(noise).permute(2, 0, 1))
        x, y = (BOXES[:, 0] + BOXES[:, 2]) / 2 - left, (BOXES[:, 1] + BOXES[:, 3]) / 2 - top
        inside = (x > 0) & (y > 0) & (x < image.shape[2]) & (y < image.shape[1])
        assert targets.labels.tolist() == LABELS[inside].tolist()
        dropped += int((~inside).sum())
    assert dropped > 5


def window_of(image: torch.Tensor, whole: torch.Tensor) -> tuple[int, int]:
    """Where a crop was taken from, found in the pixels of noise."""
    height, width = image.shape[1:]
    for top in range(40 - height + 1):
        for left in range(60 - width + 1):
            if torch.equal(whole[:, top : top + height, left : left + width], image):
                return left, top
    raise AssertionError("the crop is no window of the picture")


def test_the_iou_crop_is_not_steered_by_ignore_regions() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        image, _ = apply_transforms(
            [TRANSFORMS.build({"type": "RandomIoUCrop"})], picture(), BOXES, LABELS, torch.ones(3).bool()
        )
        assert image.shape == (3, 40, 60)


class LosesCount(Transform):
    def __call__(
        self, image: Image.Image, boxes: Any, labels: torch.Tensor
    ) -> tuple[Image.Image, torch.Tensor, torch.Tensor]:
        return image, boxes[:1], labels


class DividesByZero(Transform):
    def __call__(
        self, image: Image.Image, boxes: Any, labels: torch.Tensor
    ) -> tuple[Image.Image, torch.Tensor, torch.Tensor]:
        return image, boxes * float("nan"), labels


@pytest.mark.parametrize(
    "transform",
    [
        LosesCount(),
        DividesByZero(),
    ],
)
def test_transforms_that_spoil_boxes_are_named(refuses: Refuses, transform: DividesByZero | LosesCount) -> None:
    with refuses(ValueError):
        apply_transforms([transform], picture(), BOXES, LABELS, IGNORE)


def test_colour_does_not_move_boxes() -> None:
    _, targets = run({"type": "ColorJitter", "brightness": 0.5})
    assert targets.boxes.tolist() == BOXES[:2].tolist()


@pytest.mark.parametrize(
    "node",
    [
        {"type": "RandomHorizontalFlip", "p": 2.0},
        {"type": "ResizeShortestEdge", "short": 0},
        {"type": "ResizeShortestEdge", "short": []},
        {"type": "Resize", "height": 0, "width": 3},
        {"type": "RandomZoomOut", "side_range": [3.0, 2.0]},
        {"type": "ScaleJitter", "height": 5, "width": 5, "scale_range": [2.0, 1.0]},
        {"type": "RandomPhotometricDistort", "p": -1.0},
    ],
)
def test_senseless_arguments_are_named(refuses: Refuses, node: dict[str, Any]) -> None:
    with refuses(ValueError):
        TRANSFORMS.build(node)


def test_resize_is_detectron2s_to_the_byte(shared_dir: Path) -> None:
    from detkit.data.datasets.images import read_image

    image = read_image(shared_dir / "data/bccd/JPEGImages/BloodImage_00001.jpg")
    ours = transform_image([TRANSFORMS.build({"type": "ResizeShortestEdge", "short": 320})], image)
    golden = np.load(shared_dir / "golden/expected_detectron2.npz")["resized_image"]
    assert np.array_equal(ours.permute(1, 2, 0).numpy()[..., ::-1], golden)


def test_a_crop_beyond_pillows_limit_is_told_in_our_words(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    crop = RandomCrop(height=30, width=30)
    with refuses(ValueError):
        apply_transforms(
            [crop],
            Image.new("RGB", (40, 40)),
            torch.zeros(0, 4),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(0).bool(),
        )
