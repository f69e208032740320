"""Cutting boxes to the image before or after suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.coders.delta import DeltaCoder
from detkit.detectors.nms import HardNMS
from detkit.detectors.postprocess import PostprocessOptions, postprocess
from detkit.losses.focal import SigmoidFocalLoss
from detkit.structures import Detections, Predictions


def detect(anchors: list[list[float]], scores: list[float], options: PostprocessOptions) -> Detections:
    """The anchors as boxes of one class, in an image of height 60 and width 100."""
    logits = torch.tensor(scores).logit().view(1, -1, 1)
    pred = Predictions(logits, torch.zeros(1, len(anchors), 4), torch.tensor(anchors), (len(anchors),))
    size = torch.tensor([[60, 100]])
    (found,) = postprocess(pred, size, options, SigmoidFocalLoss(), DeltaCoder(), HardNMS())
    return found


# IoU 0.36 as they are; inside the image both are its lower half.
OVERHANGING = [[0.0, 30.0, 100.0, 80.0], [0.0, 30.0, 100.0, 170.0]]
OUTSIDE = [110.0, 10.0, 120.0, 50.0]


def test_boxes_cut_before_suppression_suppress_by_what_is_inside() -> None:
    found = detect(OVERHANGING, [0.9, 0.8], PostprocessOptions())
    assert found.boxes.tolist() == [[0, 30, 100, 60]]


def test_boxes_cut_after_suppression_suppress_by_their_whole() -> None:
    found = detect(OVERHANGING, [0.9, 0.8], PostprocessOptions(clip="after_nms"))
    assert found.boxes.tolist() == [[0, 30, 100, 60], [0, 30, 100, 60]]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))


def test_a_box_outside_is_dropped_when_cut_after_suppression_but_uses_up_its_place() -> None:
    boxes = [OUTSIDE, *OVERHANGING]
    options = PostprocessOptions(clip="after_nms", max_detections=2)
    late: Tensor = detect(boxes, [0.95, 0.9, 0.8], options).scores
    torch.testing.assert_close(late, torch.tensor([0.9]))
    early = detect(boxes, [0.95, 0.9, 0.8], PostprocessOptions())
    assert early.boxes[0].tolist() == [100, 10, 100, 50]
