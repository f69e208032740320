"""Run with: pytest projects/fcos"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detkit.assigners.base import assign as assign_by
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.registry import ANCHORS, ASSIGNERS, BOX_LOSSES, CLASS_LOSSES, CODERS, HEADS, Registry
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets
from detkit.testing import CONTRACTS
from detkit.train.run import train

FOLDER = Path(__file__).parent
CONFIG = load_config(FOLDER / "config.yaml")
LEVELS = [(8, 8), (4, 4)]
SIZES = [64, 16]


def points() -> Tensor:
    levels: list[Tensor] = ANCHORS.build(CONFIG.anchors, strides=(8, 16))(LEVELS, (64, 64), torch.device("cpu"))
    return torch.cat(levels)


def assign(boxes: list[list[float]], ignore: list[list[float]] | None = None, **settings: object) -> Assignment:
    targets = Targets(torch.tensor(boxes).view(-1, 4), torch.arange(len(boxes)), torch.tensor(ignore or []).view(-1, 4))
    nothing = torch.zeros(sum(SIZES), 4)
    candidates = Candidates(points(), tuple(SIZES), lambda: nothing, lambda: nothing)
    return assign_by(ASSIGNERS.build({"type": "PointAssigner", **settings}), candidates, targets)


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (HEADS, "PointHead"),
        (ASSIGNERS, "PointAssigner"),
        (CODERS, "PointCoder"),
        (CLASS_LOSSES, "CenternessFocalLoss"),
        (BOX_LOSSES, "CenternessGIoULoss"),
    ],
    ids=["head", "assigner", "coder", "class loss", "box loss"],
)
def test_contract(registry: Registry, name: str) -> None:
    CONTRACTS[registry.name](registry.get(name))


def test_an_anchor_is_the_cell_itself() -> None:
    assert points()[0].tolist() == [0, 0, 8, 8]
    assert points()[-1].tolist() == [48, 48, 64, 64]


def test_distances_by_hand_there_and_back() -> None:
    coder = CODERS.build({"type": "PointCoder"})
    anchors, boxes = torch.tensor([[8.0, 8, 16, 16]]), torch.tensor([[4.0, 0, 20, 36]])
    deltas = coder.encode(boxes, anchors)  # the point is (12, 12), the stride 8
    assert deltas.tolist() == [[1, 1.5, 1, 3]]
    torch.testing.assert_close(coder.decode(deltas, anchors), boxes)


def test_centreness_is_one_in_the_middle_and_falls_to_the_edges() -> None:
    # Level 0 has its points at 4, 12, 20, ...; the object's middle is (20, 20).
    assignment = assign([[8.0, 8, 32, 32]], radius=None, reach=100.0)
    quality = assignment.quality
    assert quality is not None
    grid = quality[:64].view(8, 8)
    assert grid[2, 2] == 1
    assert grid[2, 1].item() == pytest.approx((4 / 20) ** 0.5)  # left 4, right 20; top and bottom equal
    assert grid[1, 1].item() == pytest.approx(4 / 20)


def test_points_of_an_object_with_and_without_centre_sampling() -> None:
    box = [[2.0, 2, 38, 38]]
    inside = (assign(box, radius=None, reach=100.0).labels[:64].view(8, 8) == 0).nonzero()
    assert inside.amin().item() == 0
    assert inside.amax().item() == 4
    assert len(inside) == 25
    middle = (assign(box, radius=1.5, reach=100.0).labels[:64].view(8, 8) == 0).nonzero()
    assert len(middle) == 9, "the middle is (20, 20), a point; its neighbours are 8 px away, the radius 12"
    assert middle.amin().item() == 1


def test_levels_share_the_objects_out_by_size() -> None:
    small, large = [4.0, 4, 20, 20], [0.0, 0, 64, 64]
    levels = torch.split(assign([small], reach=4.0).labels, SIZES)
    assert (levels[0] == 0).any()
    assert (levels[1] == BACKGROUND).all(), "within 16 px of the point: less than half of 4 strides of 16"
    levels = torch.split(assign([large], reach=3.0).labels, SIZES)
    assert (levels[0] == BACKGROUND).all(), "32 px and more from the middle, and 24 are the most at stride 8"
    assert (levels[1] == 0).any()


def test_the_smaller_of_two_objects_has_its_points_whatever_their_order() -> None:
    small, large = [12.0, 12, 28, 28], [0.0, 0, 40, 40]
    for boxes, row in (([small, large], 0), ([large, small], 1)):
        assignment = assign(boxes, radius=None, reach=100.0)
        at = 2 * 8 + 2  # the point (20, 20)
        assert [assignment.labels[at], assignment.matched[at]] == [row, row]


def test_ignore_regions_and_images_without_objects() -> None:
    labels = assign([], [[0.0, 0, 16, 16]]).labels
    assert (labels == IGNORED).sum() == 4 + 1
    assert (labels == BACKGROUND).sum() == 60 + 15
    assert (assign([[0.0, 0, 16, 16]], [[0.0, 0, 16, 16]], radius=None).labels[:64] == 0).sum() == 4


def test_the_class_loss_owns_the_centreness() -> None:
    loss = CLASS_LOSSES.build({"type": "CenternessFocalLoss"})
    assert loss.num_columns(3) == 4
    bias = loss.initial_bias(3)
    torch.testing.assert_close(loss.scores(bias), torch.full((3,), (0.01 * 0.5) ** 0.5))
    logits = torch.tensor([[[-20.0, 20.0, 0.0], [-20.0, -20.0, 5.0]]], requires_grad=True)
    cost = loss(logits, torch.tensor([[1, BACKGROUND]]), torch.tensor([[0.5, 0.0]]))
    assert cost.item() == pytest.approx(0.6931, abs=1e-3), "the classes are right; a centre-ness of 1/2 costs log 2"
    cost.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1, 2] == 0, "the background learns no centre-ness"


def test_the_box_loss_weighs_by_centreness_and_is_a_sum() -> None:
    loss, coder = BOX_LOSSES.build({"type": "CenternessGIoULoss"}), CODERS.build({"type": "PointCoder"})
    anchors = torch.tensor([[8.0, 8, 16, 16], [0, 0, 8, 8]])
    boxes = torch.tensor([[4.0, 4, 20, 20], [0, 0, 40, 40]])  # centre-ness 1, and 4 / 36
    wrong = torch.full((2, 4), 0.5)
    both, first, second = (loss(wrong[rows], anchors[rows], boxes[rows], coder) for rows in ([0, 1], [0], [1]))
    torch.testing.assert_close(both, first + second)
    assert loss(coder.encode(boxes, anchors), anchors, boxes, coder).item() < 1e-6
    assert loss(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, 4), coder).item() == 0
    iou = 8 * 8 / 16**2  # of the first: 0.5 strides to each side of the point, in a box of 16 px
    assert first.item() == pytest.approx(1 - iou, abs=1e-5)


def test_the_head_refuses_what_are_no_points() -> None:
    with pytest.raises(ValueError, match=r"one anchor per cell, not \(16,\) and \(3,\): set anchors.scales_per_octave"):
        HEADS.build({"type": "PointHead"}, in_channels=(16,), anchors_per_cell=(3,), num_columns=2,
                    class_bias=torch.zeros(2))  # fmt: skip


@pytest.mark.parametrize("objects", [2, 0])
def test_every_parameter_gets_a_gradient_and_the_detector_detects(objects: int) -> None:
    torch.manual_seed(0)
    detector = build_detector(CONFIG, num_classes=2)
    images, sizes = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.full((2, 2), 64)
    boxes, labels = torch.tensor([[4.0, 4, 30, 30], [0, 0, 64, 64]])[:objects], torch.tensor([0, 1])[:objects]
    pred = detector(images, sizes)
    losses = detector.loss(pred, [Targets(boxes, labels), Targets(boxes[:0], labels[:0])])
    losses.total().backward()  # type: ignore[no-untyped-call]
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert len(detector.detect(pred, sizes)) == 2


def test_two_steps_of_training(tmp_path: Path) -> None:
    short = [
        "train.iterations=2",
        "schedule.warmup_iterations=0",
        "data.loader.batch_size=2",
        "data.loader.num_workers=0",
    ]
    short += ["data.train.dataset.num_images=4", "data.val.dataset.num_images=2"]
    assert train(load_config(FOLDER / "config.yaml", short), tmp_path / "run") == 0
    assert json.loads((tmp_path / "run/result.json").read_text())
