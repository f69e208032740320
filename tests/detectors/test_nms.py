"""The suppression part."""

from __future__ import annotations

import pytest
import torch

from detkit.detectors.nms import HardNMS
from detkit.registry import NMS

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


def test_threshold_is_checked() -> None:
    with pytest.raises(ValueError, match=r"iou_threshold: 50 is not in \[0, 1\]"):
        HardNMS(iou_threshold=50)


def test_it_is_registered() -> None:
    assert NMS.get("HardNMS") is HardNMS
