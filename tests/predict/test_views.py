"""Tiles, scales and flips: what is looked at, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detkit.data.transforms.geometry import ResizeShortestEdge
from detkit.nms.methods import HardNMS
from detkit.predict.backend import InputRules
from detkit.predict.predictor import Predictor
from detkit.predict.views import Views, tile_edges
from tests.predict.blobs import Blobs, painted
from tests.refusals import Refuses

RECTANGLES = [
    ("red", (10, 12, 40, 30)), ("green", (55, 50, 75, 74)), ("blue", (120, 100, 158, 140)), ("red", (150, 5, 198, 20)),
    ("green", (60, 90, 68, 96)),
]  # fmt: skip
IMAGE = painted(200, 150, RECTANGLES)


def found(detections: Any) -> Any:
    return sorted((d.name, tuple(round(v) for v in d.box)) for d in detections)


@pytest.mark.parametrize(
    ("side", "tile", "overlap", "edges"),
    [
        (100, 100, 0.2, [(0, 100)]),
        (64, 100, 0.2, [(0, 64)]),
        (180, 100, 0.2, [(0, 100), (80, 180)]),
        (181, 100, 0.2, [(0, 100), (80, 180), (81, 181)]),
        (200, 100, 0.0, [(0, 100), (100, 200)]),
        (7, 3, 0.9, [(0, 3), (1, 4), (2, 5), (3, 6), (4, 7)]),
    ],
)
def test_tiles_cover_a_side_and_end_with_it(side: int, tile: int, overlap: float, edges: Any) -> None:
    assert tile_edges(side, tile, overlap) == edges


@pytest.mark.parametrize("merge", ["nms", "wbf"])
@pytest.mark.parametrize(
    "more",
    [
        {"tile": 64, "overlap": 0.5},
        {"tile": 80, "overlap": 0.75, "whole": False},
        {"flip": True},
        {"scales": (0.5, 1.0, 2.0)},
        {"tile": 64, "overlap": 0.5, "flip": True, "scales": (1.0, 2.0)},
    ],
    ids=str,
)
def test_what_is_in_the_image_is_found_once_in_any_views(more: Any, merge: Any) -> None:
    predictor = Predictor(Blobs(), batch_size=3, views=Views(merge=merge, **more))
    detections = predictor(IMAGE)[0]
    assert [name for name, _ in found(detections)] == [name for name, _ in sorted(RECTANGLES)]
    for (_, box), (_, expected) in zip(found(detections), sorted(RECTANGLES), strict=True):
        assert np.abs(np.subtract(box, expected)).max() <= (1 if "scales" in more else 0)
    assert (detections.scores.diff() <= 0).all()
    assert detections.scores.max() == pytest.approx(230 / 256, abs=0.05)


def test_small_objects_of_a_large_image_are_found_in_tiles_alone() -> None:
    """Shrunk to 50 pixels, an object of 6 pixels in 600 is gone; in tiles of 100 it is there."""
    small = [("red", (400, 300, 406, 306)), ("blue", (13, 580, 19, 586))]
    image = painted(600, 600, small)
    backend = Blobs(InputRules(transforms=[ResizeShortestEdge(short=50)], size_divisor=16))
    assert found(Predictor(backend)(image)[0]) == []
    tiled = Predictor(backend, views=Views(tile=100))(image)[0]
    assert [d.name for d in tiled] == ["blue", "red"] or [d.name for d in tiled] == ["red", "blue"]
    boxes = torch.tensor([box for _, box in sorted((d.name, d.box) for d in tiled)])
    torch.testing.assert_close(boxes, torch.tensor([[13.0, 580, 19, 586], [400, 300, 406, 306]]), rtol=0, atol=3)


def test_tiles_without_overlap_find_parts_unless_the_whole_image_is_looked_at() -> None:
    image = painted(128, 64, [("red", (50, 10, 80, 40))])
    assert found(Predictor(Blobs(), views=Views(tile=64, overlap=0))(image)[0]) == [("red", (50, 10, 80, 40))]
    parts = Predictor(Blobs(), views=Views(tile=64, overlap=0, whole=False))(image)[0]
    assert found(parts) == [("red", (50, 10, 64, 40)), ("red", (64, 10, 80, 40))]


def test_a_scale_changes_the_size_that_the_network_gets() -> None:
    backend = Blobs(InputRules(transforms=[ResizeShortestEdge(short=96)], size_divisor=16))
    Predictor(backend, views=Views(scales=(0.5, 1, 1.5)))(painted(100, 100, []))
    assert [shape[-2:] for shape in backend.shapes] == [(48, 48), (96, 96), (144, 144)]


def test_one_view_is_what_the_network_gives() -> None:
    """No second suppression where there is nothing to merge."""
    image = painted(64, 64, [("red", (10, 10, 30, 30))])
    backend = Blobs(nms=HardNMS(iou_threshold=0.0, class_agnostic=True))
    twice = painted(64, 64, [("red", (10, 10, 30, 30)), ("green", (10, 10, 30, 30))])
    assert len(Predictor(backend)(twice)[0]) == 2
    assert len(Predictor(backend, views=Views(flip=True))(twice)[0]) == 1
    assert len(Predictor(backend, views=Views(tile=64))(image)[0]) == 1


def test_fusion_lowers_what_one_view_of_two_shows() -> None:
    class Forgetful(Blobs):
        def network(self, images: Any, sizes: Any) -> Any:
            results = super().network(images, sizes)
            if len(self.shapes) > 1:
                results = [r.__class__(r.boxes[:0], r.scores[:0], r.labels[:0]) for r in results]
            return results

    image = painted(64, 64, [("red", (10, 10, 30, 30))], value=128)
    score = {
        merge: Predictor(Forgetful(), batch_size=1, views=Views(flip=True, merge=merge))(image)[0].scores.tolist()
        for merge in ("nms", "wbf")
    }
    assert score == {"nms": [0.5], "wbf": [0.25]}


def test_the_number_of_detections_is_that_of_the_model() -> None:
    image = painted(128, 128, [("red", (8 * k, 16 * r, 8 * k + 5, 16 * r + 5)) for k in range(16) for r in range(8)])
    assert len(Predictor(Blobs(max_detections=20), views=Views(tile=96))(image)[0]) == 20


@pytest.mark.parametrize(
    "wrong", [{"tile": 0}, {"overlap": 0.95}, {"overlap": -0.1}, {"scales": ()}, {"scales": (0.0,)}, {"merge": "x"},
              {"fusion_iou": 1.5}],
    ids=str,
)  # fmt: skip
def test_views_that_make_no_sense_are_refused(refuses: Refuses, wrong: Any) -> None:
    with refuses(ValueError):
        Views(**wrong)


def test_a_network_of_one_size_refuses_other_sizes(refuses: Refuses) -> None:
    backend = Blobs(InputRules(size=(64, 64), batch=4))
    assert len(Predictor(backend, batch_size=2)(painted(64, 48, [("red", (1, 1, 9, 9))]))[0]) == 1
    assert backend.shapes == [(4, 3, 64, 64)]
    with refuses(ValueError):
        Predictor(backend, views=Views(scales=(2.0,)))(np.zeros((64, 64, 3), np.uint8))
