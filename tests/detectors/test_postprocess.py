"""Cutting boxes to the image before or after suppression."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detkit.coders.delta import DeltaCoder
from detkit.detectors.postprocess import PostprocessOptions, postprocess
from detkit.losses.focal import SigmoidFocalLoss
from detkit.nms.methods import HardNMS
from detkit.structures import Detections, Predictions
from tests.refusals import Refuses


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


def two_classes(scores: list[list[float]], options: PostprocessOptions) -> Detections:
    """Boxes far from each other on two levels, with (first class, second class) scores."""
    count = len(scores)
    anchors = torch.arange(count)[:, None] * 10.0 + torch.tensor([0.0, 0.0, 5.0, 5.0])
    pred = Predictions(torch.tensor(scores).logit()[None], torch.zeros(1, count, 4), anchors, (2, count - 2))
    (found,) = postprocess(pred, torch.tensor([[100, 100]]), options, SigmoidFocalLoss(), DeltaCoder(), HardNMS())
    return found


SCORES = [[0.9, 0.2], [0.8, 0.3], [0.7, 0.1], [0.6, 0.04]]


def test_the_best_of_each_class_are_taken_over_all_levels() -> None:
    found = two_classes(SCORES, PostprocessOptions(topk_per_level=None, topk_per_class=2))
    expected = [(0.9, 0, 0.0), (0.8, 0, 10.0), (0.3, 1, 10.0), (0.2, 1, 0.0)]
    for i, (score, label, left) in enumerate(expected):
        assert found.scores[i].item() == pytest.approx(score)
        assert (int(found.labels[i]), found.boxes[i, 0].item()) == (label, left)
    assert len(found) == 4
    # More than there are takes all above the threshold, which the last of the second class is not.
    assert len(two_classes(SCORES, PostprocessOptions(topk_per_level=None, topk_per_class=100))) == 7
    # By level, the two best of the first are both of the first class.
    assert two_classes(SCORES, PostprocessOptions(topk_per_level=2)).labels.tolist() == [0, 0, 0, 0]


def test_one_of_the_two_numbers_is_null(refuses: Refuses) -> None:
    for level, per_class in ((1000, 400), (None, None)):
        with refuses(ValueError):
            PostprocessOptions(topk_per_level=level, topk_per_class=per_class)
    with refuses(ValueError):
        PostprocessOptions(topk_per_level=None, topk_per_class=0)


def test_anchors_instead_of_pairs_are_counted_by_their_best_class() -> None:
    by_anchor = two_classes(SCORES, PostprocessOptions(topk_per_level=1, topk_counts="anchors"))
    assert sorted(by_anchor.scores.tolist(), reverse=True) == pytest.approx([0.9, 0.7, 0.2, 0.1])
    by_pair = two_classes(SCORES, PostprocessOptions(topk_per_level=1))
    assert by_pair.scores.tolist() == pytest.approx([0.9, 0.7])


def test_detections_move_to_the_mean_of_those_that_overlap_them() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0], [50.0, 0.0, 60.0, 10.0]]
    still = detect(boxes, [0.9, 0.8, 0.7], PostprocessOptions())
    moved = detect(boxes, [0.9, 0.8, 0.7], PostprocessOptions(vote_sigma=0.025))
    assert torch.equal(moved.scores, still.scores)
    bottom = moved.boxes[0, 3].item()
    assert 10.0 < bottom < 10.5
    assert moved.boxes[1].tolist() == still.boxes[1].tolist()
