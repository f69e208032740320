"""The suppression part."""

from __future__ import annotations

import pytest
import torch

from detkit.coders.delta import DeltaCoder
from detkit.detectors.postprocess import PostprocessOptions, postprocess
from detkit.losses.focal import SigmoidFocalLoss
from detkit.nms.base import NonMaxSuppression
from detkit.nms.methods import DIoUNMS, HardNMS, MatrixNMS, SoftNMS
from detkit.registry import NMS
from detkit.structures import Predictions
from tests.refusals import Refuses

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [30, 30, 40, 40]])
SCORES = torch.tensor([0.5, 0.9, 0.7])


def test_hard_nms_works_within_groups() -> None:
    groups = torch.tensor([1, 1, 1])
    keep, scores = HardNMS()(BOXES, SCORES, groups)
    assert keep.tolist() == [1, 2]
    assert torch.equal(scores, SCORES[keep])
    assert HardNMS()(BOXES, SCORES, torch.tensor([0, 1, 1]))[0].tolist() == [1, 2, 0]
    assert HardNMS(iou_threshold=0.95)(BOXES, SCORES, groups)[0].tolist() == [1, 2, 0]


def test_class_agnostic_is_one_group() -> None:
    assert HardNMS(class_agnostic=True)(BOXES, SCORES, torch.tensor([0, 1, 2]))[0].tolist() == [1, 2]


def test_threshold_is_checked(refuses: Refuses) -> None:
    with refuses(ValueError):
        HardNMS(iou_threshold=50)


def test_it_is_registered() -> None:
    assert NMS.get("HardNMS") is HardNMS


@pytest.mark.parametrize("part", [HardNMS(), SoftNMS(), SoftNMS(method="linear"), DIoUNMS(), MatrixNMS()])
def test_every_part_says_scores_in_order_and_keeps_groups_apart(part: NonMaxSuppression) -> None:
    keep, scores = part(BOXES, SCORES, torch.tensor([0, 0, 0]))
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert (scores <= SCORES[keep]).all()
    assert keep[0] == 1
    twin = (scores[keep == 0] < 0.2).all()  # dropped, or next to nothing
    assert twin
    keep, scores = part(BOXES, SCORES, torch.tensor([0, 1, 2]))
    assert keep.tolist() == [1, 2, 0]
    assert torch.equal(scores, SCORES[keep])


@pytest.mark.parametrize("name", ["SoftNMS", "DIoUNMS", "MatrixNMS"])
def test_a_config_names_them_and_lowered_scores_reach_the_detections(name: str) -> None:
    node = {"type": name, "class_agnostic": True}
    logits = torch.logit(SCORES)[:, None].expand(3, 1)[None]
    pred = Predictions(logits, torch.zeros(1, 3, 4), BOXES, (3,))
    (found,) = postprocess(
        pred, torch.tensor([[50, 50]]), PostprocessOptions(), SigmoidFocalLoss(), DeltaCoder(), NMS.build(node)
    )
    assert found.scores.tolist()[:2] == pytest.approx([0.9, 0.7])
    assert len(found) == 2 or found.scores[2] < 0.2
    assert (found.scores > 0.05).all()


def test_options_are_checked(refuses: Refuses) -> None:
    with refuses(ValueError):
        SoftNMS(sigma=0.0)
    with refuses(ValueError):
        SoftNMS(min_score=2)
