"""FSAF and FoveaBox, of which there are no values of MMDetection: they learn from what their papers say."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.structures import BACKGROUND, IGNORED, Targets
from tests.family import reference as ref

NAMES = ["fsaf", "foveabox"]
SMALL = ["backbone.depth=18", "neck.channels=32", "head.num_convs=1"]


@cache
def detector(name: str) -> DenseDetector:
    torch.manual_seed(0)
    return build_detector(load_config(f"configs/{name}/{name}.yaml", SMALL), 3)


@pytest.mark.parametrize("variant", ["full", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str, variant: str) -> None:
    model = detector(name)
    images, sizes, _ = ref.inputs()
    model.zero_grad()
    losses = model.loss(model(images, sizes), ref.targets_of(variant))
    assert list(losses.terms) == ["classification", "box"]
    losses.mean().backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


def test_targets_of_foveabox_by_hand() -> None:
    model = detector("foveabox")
    images, sizes, _ = ref.inputs()
    with torch.no_grad():
        pred = model(images[:1], sizes[:1])
    # 48 px: on the levels of 16 .. 64 px and 32 .. 128 px; the middle (40, 40), the part of 19.2 px.
    match = model.match(pred, [Targets(torch.tensor([[16.0, 16, 64, 64]]), torch.tensor([1]))])
    fine, middle, *rest = torch.split(match.labels[0], list(pred.level_sizes))
    assert [int((level == 1).sum()) for level in (fine, middle)] == [4, 1]  # 36 and 44 in x and in y; 40
    assert all((level == BACKGROUND).all() for level in rest)
    encoded = model.coder.encode(match.boxes, pred.anchors[match.row])
    wanted = torch.tensor([[20.0, 20, 28, 28], [24, 24, 24, 24]]) / torch.tensor([[32.0], [64.0]])
    torch.testing.assert_close(encoded[[0, -1]], wanted.log())
    assert encoded[-1, 0].item() == pytest.approx(math.log(24 / 64))


def test_an_object_of_fsaf_has_one_level() -> None:
    model = detector("fsaf")
    images, sizes, _ = ref.inputs()
    with torch.no_grad():
        pred = model(images, sizes)
    targets = ref.targets_of("full")
    labels = model.match(pred, targets).labels
    assert (labels == IGNORED).any()
    for image, target in enumerate(targets):
        assignment = model.assigner(model.candidates(pred, image), target)
        level = torch.repeat_interleave(torch.arange(5), torch.tensor(pred.level_sizes))
        for row in range(len(target.boxes)):
            mine = (assignment.labels >= 0) & (assignment.matched == row)
            assert len(level[mine].unique()) <= 1


def test_distances_of_fsaf_start_above_zero() -> None:
    model = detector("fsaf").eval()
    images, sizes, _ = ref.inputs()
    with torch.no_grad():
        pred = model(images, sizes)
    boxes = model.coder.decode(pred.deltas[0], pred.anchors)
    strides = pred.anchors[:, 2] - pred.anchors[:, 0]
    # Four strides times 0.25 to each side, but for the weights' noise.
    assert ((boxes[:, 2] - boxes[:, 0]) / (2 * strides)).median().item() == pytest.approx(1, abs=0.2)
