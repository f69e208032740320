"""Objects that transforms lose are counted and named, whatever loses them."""

import logging
from typing import Any

import pytest
import torch
from PIL import Image

from detkit.config import load_config
from detkit.data.audit import audit_objects, warn_of_lost_objects
from detkit.data.build import build_dataset
from detkit.data.transforms.base import Transform, trace_lost_objects
from detkit.data.transforms.geometry import RandomCrop, RandomHorizontalFlip, Resize, ResizeShortestEdge
from tests.refusals import Refuses

BOXES = torch.tensor([[10.0, 10, 14, 60], [20, 20, 80, 60], [0, 0, 90, 60]])
PLAIN = torch.tensor([False, False, False])


class Half(Transform):
    """Keeps the left half."""

    def __call__(self, image: Image.Image, boxes: Any, labels: torch.Tensor) -> tuple[Image.Image, Any, torch.Tensor]:
        from torchvision.transforms.v2.functional import crop

        place = (0, 0, image.height, image.width // 2)
        return crop(image, *place), crop(boxes, *place), labels


class Remove(Transform):
    """Takes boxes out altogether, which leaves fewer."""

    def __call__(self, image: Image.Image, boxes: Any, labels: torch.Tensor) -> tuple[Image.Image, Any, torch.Tensor]:
        from torchvision import tv_tensors

        return image, tv_tensors.wrap(boxes[1:], like=boxes), labels[1:]


def lost(
    transforms: list[Any], boxes: torch.Tensor = BOXES, ignore: torch.Tensor = PLAIN, size: tuple[int, int] = (96, 64)
) -> list[tuple[int, str, float, float]]:
    return [
        (x.row, x.by, round(x.width, 2), round(x.height, 2))
        for x in trace_lost_objects(transforms, Image.new("RGB", size), boxes, ignore)
    ]


def test_a_thin_object_is_lost_by_the_resize_with_its_size_in_the_network() -> None:
    assert lost([ResizeShortestEdge(short=16)]) == []
    assert lost([ResizeShortestEdge(short=8)]) == [(0, "ResizeShortestEdge", 0.5, 6.25)]
    assert lost([ResizeShortestEdge(short=8)], ignore=torch.tensor([True, False, False])) == [], "no object"


def test_the_transform_that_takes_an_object_away_is_named_among_several() -> None:
    boxes = torch.tensor([[50.0, 10, 90, 60], [10, 10, 14, 60], [10, 10, 40, 40]])
    found = lost([RandomHorizontalFlip(p=0), Half(), Resize(height=8, width=6)], boxes)
    assert [(row, by) for row, by, *_ in found] == [(0, "Half"), (1, "Resize")]
    assert lost([Resize(height=8, width=12), Resize(height=64, width=96)], boxes[1:2], PLAIN[:1]) == [], (
        "thin for a while"
    )


def test_a_box_that_is_thin_in_the_file_is_the_annotations_affair() -> None:
    assert lost([], torch.tensor([[1.0, 1, 1.5, 30]]), PLAIN[:1]) == [(0, "the annotation", 0.5, 29.0)]


def test_a_transform_that_removes_boxes_is_counted() -> None:
    assert lost([Remove()]) == [(0, "Remove", 0.0, 0.0)]


def test_objects_are_named_with_image_box_and_size(folder: Any) -> None:
    folder.write("train", [[[8, 8, 40, 30], [60, 10, 20, 0.9]], [], [[8, 8, 3, 30]]])
    data = build_dataset(load_config(folder.config), "train")
    found = audit_objects(data, [ResizeShortestEdge(short=16, max_size=32)])
    assert (found.images, found.objects) == (3, 3)
    text = found.describe(data)
    assert text is not None
    assert "train.json: 2 of 3 objects never reach the network: 1 by the annotation, 1 by ResizeShortestEdge" in text
    assert f"image {folder.file('train', 0)} box 2 [60.0, 10.0, 80.0, 10.9]: 5x0.22 px" in text
    assert f"image {folder.file('train', 2)} box 1 [8.0, 8.0, 11.0, 38.0]: 0.75x7.5 px at the network's size" in text
    assert audit_objects(data, [ResizeShortestEdge(short=64)], indices=[2]).describe(data) is None


def test_what_a_random_crop_leaves_out_now_and_then_is_no_loss(folder: Any) -> None:
    folder.write("train", [[[8, 8, 20, 20], [70, 40, 20, 20]]] * 3)
    data = build_dataset(load_config(folder.config), "train")
    found = audit_objects(data, [RandomCrop(height=48, width=60)])
    assert found.never == []
    assert found.by_chance["RandomCrop"] > 0
    assert "by RandomCrop of 6 objects are left out by chance" in (found.describe_chance() or "")


def test_the_size_of_an_image_is_read_where_the_annotation_states_none(folder: Any) -> None:
    content = (folder.root / "train.json").read_text()
    (folder.root / "train.json").write_text(content.replace('"width"', '"w"'))
    data = build_dataset(load_config(folder.config), "train")
    assert data.records.sizes.tolist() == [[-1, -1]] * 3
    assert len(audit_objects(data, [Half(), Resize(height=1, width=30)]).never) == 3


def test_a_training_begins_with_a_warning_or_not_at_all(
    refuses: Refuses, folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write("train", [[[8, 8, 40, 30], [8, 8, 2, 30]]])
    config = load_config(folder.config)
    train, val = (build_dataset(config, split) for split in ("train", "val"))
    small = [ResizeShortestEdge(short=16)]
    with caplog.at_level(logging.WARNING, logger="detkit"):
        warn_of_lost_objects((train, small), (val, []), 0)
    assert [r.getMessage().split(":")[1].split(" never")[0] for r in caplog.records] == [" 1 of 2 objects"]
    caplog.clear()
    warn_of_lost_objects((val, []), (train, small), 0)
    assert "AP counts them, and the network hardly sees them" in caplog.text
    with refuses(ValueError):
        warn_of_lost_objects((train, [Resize(height=1, width=1)]), (val, []), 0)


def test_a_fault_of_a_transform_names_the_image(refuses: Refuses, folder: Any) -> None:
    class Broken(Transform):
        def __call__(self, image: Image.Image, boxes: Any, labels: torch.Tensor) -> None:
            raise self.error

    data, broken = build_dataset(load_config(folder.config), "train"), Broken()
    for error, kind in ((TypeError("no"), RuntimeError), (ValueError("no"), ValueError)):
        broken.error = error
        with refuses(kind):
            audit_objects(data, [broken])
