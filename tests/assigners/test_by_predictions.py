"""What the assigners that look at predictions share: chunks, ignored anchors, and what each gives an object."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.anchors.grid import OctaveAnchors
from detkit.assigners.base import Assigner, assign
from detkit.registry import ASSIGNERS
from detkit.structures import BACKGROUND, IGNORED, Candidates, Targets

NAMES = pytest.mark.parametrize("name", ["SimOTAAssigner", "DynamicSoftLabelAssigner", "UniformAssigner"])
BOXES = torch.tensor([[10.0, 12, 60, 50], [30, 20, 100, 110], [70, 70, 90, 84], [28, 22, 96, 104]])
LABELS = torch.tensor([0, 1, 2, 1])


def points() -> tuple[Tensor, tuple[int, ...]]:
    """A square as wide as the stride in every cell of three levels of 128 px."""
    anchors = OctaveAnchors(strides=(8, 16, 32), base_scale=1.0, scales_per_octave=1, aspect_ratios=[1.0], offset=0.5)
    levels = anchors([(16, 16), (8, 8), (4, 4)], (128, 128), torch.device("cpu"))
    return torch.cat(levels), tuple(map(len, levels))


def candidates(quality: float = 1.0) -> Candidates:
    generator = torch.Generator().manual_seed(1)
    anchors, sizes = points()
    scores = torch.rand(len(anchors), 3, generator=generator)
    # Every prediction is near some box, so that overlaps differ.
    of = torch.randint(len(BOXES), (len(anchors),), generator=generator)
    boxes = BOXES[of] + 6 * torch.randn(len(anchors), 4, generator=generator)
    return Candidates(anchors, sizes, lambda: scores, lambda: boxes, quality=lambda: torch.full_like(of, 1) * quality)


def build(name: str, **arguments: Any) -> Assigner:
    part: Assigner = ASSIGNERS.build({"type": name, **arguments})
    return part


@NAMES
def test_chunks_change_nothing(name: str) -> None:
    at_once, one_by_one = (
        assign(build(name, chunk_elements=n), candidates(), Targets(BOXES, LABELS)) for n in (10**9, 1)
    )
    assert (at_once.labels >= 0).sum() > 4
    assert torch.equal(at_once.labels, one_by_one.labels)
    assert torch.equal(at_once.matched, one_by_one.matched)
    for a, b in ((at_once.quality, one_by_one.quality), (at_once.pairs, one_by_one.pairs)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@NAMES
def test_ignored_anchors_match_nothing(name: str) -> None:
    region = torch.tensor([[0.0, 0.0, 64.0, 128.0]])
    found = assign(build(name), candidates(), Targets(BOXES, LABELS, region))
    inside = points()[0][:, 2] <= 64
    assert (found.labels[inside] == IGNORED).all()
    assert (found.labels >= 0).any()
    assert found.pairs is None or not inside[found.pairs[0]].any()


@NAMES
def test_no_prediction_near_an_object_is_background(name: str) -> None:
    far = candidates()
    anchors, sizes = points()
    lost = Candidates(anchors, sizes, far.scores, lambda: anchors + 1000.0)
    found = assign(build(name), lost, Targets(BOXES[:1] + 500, LABELS[:1]))
    assert (found.labels == BACKGROUND).sum() >= len(anchors) - 8


def test_simota_takes_points_by_the_score_of_class_and_quality() -> None:
    """Two predictions of the same box: the one whose score is higher is taken."""
    anchors = torch.tensor([[8.0, 8, 16, 16], [16, 8, 24, 16]])
    box = torch.tensor([[0.0, 0, 32, 24]])
    for best in (0, 1):
        quality = torch.tensor([0.5, 0.5])
        quality[best] = 0.9
        given = Candidates(anchors, (2,), lambda: torch.full((2, 1), 0.8), lambda: box.expand(2, 4) + 16,
                           quality=lambda q=quality: q)  # type: ignore[misc]  # fmt: skip
        found = assign(build("SimOTAAssigner", offset=0.0), given, Targets(box, LABELS[:1]))
        assert found.labels.tolist() == [0 if i == best else BACKGROUND for i in range(2)]


def test_a_point_that_all_take_goes_to_the_object_that_it_costs_least() -> None:
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16]])
    boxes = torch.tensor([[0.0, 0, 16, 16], [0, 0, 15, 16], [0, 0, 16, 15]])
    predicted = torch.tensor([[0.0, 0, 16, 15.5], [0, 0, 3, 3], [0, 0, 3, 3]])
    given = Candidates(anchors, (3,), lambda: torch.full((3, 1), 0.5), lambda: predicted)
    found = assign(build("SimOTAAssigner", topk=1), given, Targets(boxes, torch.zeros(3, dtype=torch.int64)))
    assert found.labels.tolist() == [0, BACKGROUND, BACKGROUND]
    assert found.matched[0] == 0  # IoU 0.969, against 0.909 and 0.968


def test_uniform_gives_large_and_small_objects_the_same_number() -> None:
    found = assign(build("UniformAssigner", positive=0.0), candidates(), Targets(BOXES, LABELS))
    assert found.pairs is not None
    assert found.pairs[1].bincount().tolist() == [8] * len(BOXES)
