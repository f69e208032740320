from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from detkit.analyze.anchor_coverage import Sample, best_anchors, measure, read_samples, warn_of_misfits
from detkit.analyze.anchor_fit import divide, fit, k_means, shape_iou, to_yaml
from detkit.anchors.grid import ExplicitAnchors
from detkit.assigners.max_iou import MaxIoUAssigner
from detkit.boxes import pairwise_iou
from detkit.data.datasets.records import Records, RecordsBuilder
from detkit.data.loader import LoaderOptions
from detkit.data.transforms.colour import ColorJitter
from detkit.data.transforms.geometry import Resize
from detkit.structures import FeatureShape
from tests.refusals import Refuses

OPTIONS = LoaderOptions(size_divisor=32)


def dataset(
    size: tuple[int, int] = (40, 80), boxes: tuple[tuple[int, int, int, int], ...] = ((0, 0, 8, 8), (16, 0, 56, 40))
) -> Any:
    """Four images, none of which can be read."""
    builder = RecordsBuilder("hand-made", "error")
    for i in range(4):
        builder.add(i, f"{i}.png", size, boxes, [0] * len(boxes), [False] * len(boxes))
    return HandMade(builder.build())


class HandMade:
    def __init__(self, records: Records) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def load_image(self, index: int) -> None:
        raise AssertionError("no image is to be read")


def test_boxes_are_those_after_the_resize_and_areas_those_on_disk() -> None:
    transforms = [Resize(height=80, width=160), ColorJitter(brightness=0.5)]
    samples = list(read_samples(dataset(), transforms, OPTIONS, seed=0, limit=3))
    assert len(samples) == 3
    assert samples[0].size == (96, 160)
    assert samples[0].boxes.tolist() == [[0, 0, 16, 16], [32, 0, 112, 80]]
    assert samples[0].area.tolist() == [64, 1600]


def test_images_of_unknown_size_are_left_out_unless_they_may_be_read(refuses: Refuses) -> None:
    unknown = dataset(size=(-1, -1))
    assert list(read_samples(unknown, [], OPTIONS, seed=0)) == []
    with refuses(AssertionError):
        next(read_samples(unknown, [], OPTIONS, seed=0, read_images=True))


def test_best_anchor_by_hand() -> None:
    generator = ExplicitAnchors(strides=(8, 32), sizes=[[(8.0, 8.0)], [(32.0, 32.0)]])
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 16, 8], [32, 0, 64, 16]])
    coverage = measure(generator, [8, 32], [Sample((32, 64), boxes, torch.ones(3))])
    assert coverage.iou.tolist() == [1.0, 0.5, 0.5]
    assert coverage.level.tolist() == [0, 0, 1]
    assert coverage.recall(0.5) == 1
    assert coverage.recall(0.51) == pytest.approx(1 / 3)


def test_chunks_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=generator) * 50
    boxes = torch.cat((corners, corners + 1 + torch.rand(300, 2, generator=generator) * 30), dim=1)
    levels = [boxes[:200] + 1.5, boxes[150:] * 1.1]
    iou, level = best_anchors(boxes, levels, chunk=1000)
    whole = torch.stack([pairwise_iou(boxes, anchors).amax(dim=1) for anchors in levels])
    assert torch.equal(iou, whole.amax(dim=0))
    assert torch.equal(level, whole.argmax(dim=0))


def test_k_means_finds_planted_shapes() -> None:
    planted = torch.tensor([[10.0, 10], [40, 20], [30, 90]], dtype=torch.float64)
    noise = 1 + 0.05 * torch.randn(200, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = k_means((planted * noise).reshape(-1, 2), 3)
    torch.testing.assert_close(found, planted, rtol=0.02, atol=0)
    assert float(shape_iou(planted, planted).diagonal().min()) == 1


def test_fewer_shapes_than_anchors_still_give_that_many() -> None:
    sizes = divide(torch.full((5, 2), 20.0, dtype=torch.float64), [8, 16], 3, 0.0, 0)
    assert [len(level) for level in sizes] == [3, 3]
    assert (20.0, 20.0) in sizes[0]
    # A level without objects takes the shapes of its neighbour, twice as large.
    assert divide(torch.full((5, 2), 20.0, dtype=torch.float64), [8, 16], 1, 2.0, 0) == [[(20, 20)], [(40, 40)]]


def test_fit_reaches_what_was_planted_on_the_levels(refuses: Refuses) -> None:
    centres = np.random.default_rng(0).uniform(60, 196, (60, 2))
    half = np.array([[8, 8], [50, 25]] * 30) / 2
    boxes = torch.tensor(np.concatenate((centres - half, centres + half), axis=1)).float()
    sizes, coverage = fit([Sample((256, 256), boxes, torch.ones(60))], [8, 16], 1, 0.5)
    assert sizes == [[(8.0, 8.0)], [(50.0, 25.0)]]
    assert len(coverage.iou) == 60
    assert "    - [[8, 8]]  # stride 8\n    - [[50, 25]]  # stride 16" in to_yaml(sizes, [8, 16])
    with refuses(ValueError):
        fit([], [8], 1, 0.5)


def detector(side: float, assigner: MaxIoUAssigner | SimpleNamespace) -> Any:
    generator = ExplicitAnchors(strides=(8,), sizes=[(side, side)])
    neck = SimpleNamespace(out_shapes={"p3": FeatureShape(1, 8)})
    return SimpleNamespace(anchors=generator, neck=neck, assigner=assigner)


def test_misfits_are_warned_of_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    boxes = ((0, 0, 8, 8), (16, 0, 56, 40))
    missing = SimpleNamespace(positive_iou=None)
    for side, assigner in ((8.0, MaxIoUAssigner()), (8.0, missing)):
        with caplog.at_level(logging.WARNING, logger="detkit"):
            warn_of_misfits(detector(side, assigner), dataset(boxes=boxes), [], OPTIONS, seed=0, config="my.yaml")
    assert len(caplog.records) == 1
    assert "only 50 % of 8 objects (in 4 training images)" in caplog.text
    assert "detkit anchors fit my.yaml" in caplog.text
    caplog.clear()
    fitting = detector(8.0, MaxIoUAssigner())
    warn_of_misfits(fitting, dataset(boxes=boxes[:1]), [], OPTIONS, seed=0, config="my.yaml")
    warn_of_misfits(fitting, dataset(size=(-1, -1)), [], OPTIONS, seed=0, config="my.yaml")
    assert not caplog.records
