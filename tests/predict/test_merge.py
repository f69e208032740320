"""Weighted boxes fusion against values worked out by hand from the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detkit.predict.merge import views_with, weighted_boxes_fusion


def fusion(rows: Any, **more: Any) -> Any:
    boxes = np.array([box for *_, box in rows], dtype=np.float64).reshape(-1, 4)
    scores, labels = np.array([s for s, *_ in rows]), np.array([k for _, k, _ in rows], dtype=np.int64)
    found = weighted_boxes_fusion(boxes, scores, labels, **more)
    return [(round(float(s), 6), int(k), tuple(np.round(b, 6).tolist())) for b, s, k in zip(*found, strict=True)]


def test_two_models_that_agree_give_the_mean_by_scores() -> None:
    # x1 = (.9 * 0 + .6 * 1) / 1.5 = .4, x2 = (.9 * 10 + .6 * 11) / 1.5 = 10.4; C = (.9 + .6) / 2 = .75, T = N = 2.
    rows = [(0.9, 0, (0, 0, 10, 10)), (0.6, 0, (1, 0, 11, 10))]
    assert fusion(rows, models=2) == [(0.75, 0, (0.4, 0, 10.4, 10))]


def test_what_one_model_of_three_finds_has_a_third_of_its_score() -> None:
    # Equation 4: C * min(T, N) / N = .9 * 1 / 3.
    assert fusion([(0.9, 1, (0, 0, 10, 10))], models=3) == [(0.3, 1, (0, 0, 10, 10))]


def test_more_members_than_models_do_not_raise_the_score() -> None:
    # min(3, 2) / 2 = 1, so C = (.9 + .6 + .3) / 3.
    rows = [(0.9, 0, (0, 0, 10, 10)), (0.6, 0, (0, 0, 10, 10)), (0.3, 0, (0, 0, 10, 10))]
    assert fusion(rows, models=2) == [(0.6, 0, (0, 0, 10, 10))]


def test_a_box_is_matched_to_the_fused_box_not_to_its_members() -> None:
    # (0, 10) and (3, 13), IoU 7 / 13 = .538 > .5, fuse with equal scores to (1.5, 11.5). (5, 15) overlaps that by 6.5
    # of 13.5 = .481, not enough, though it overlaps the second member by 8 of 12.
    rows = [(0.8, 0, (0, 0, 10, 1)), (0.8, 0, (3, 0, 13, 1)), (0.5, 0, (5, 0, 15, 1))]
    assert fusion(rows, models=1, iou_threshold=0.5) == [(0.8, 0, (1.5, 0, 11.5, 1)), (0.5, 0, (5, 0, 15, 1))]


def test_classes_are_fused_apart_and_the_order_of_the_input_does_not_count() -> None:
    rows = [(0.5, 0, (0, 0, 10, 10)), (0.7, 1, (0, 0, 10, 10)), (0.9, 0, (0, 0, 10, 10))]
    want = [(0.7, 0, (0, 0, 10, 10)), (0.7, 1, (0, 0, 10, 10))]
    assert fusion(rows, models=1) == fusion(rows[::-1], models=1) == want


def test_nothing_and_scores_of_zero_do_no_harm() -> None:
    assert fusion([], models=2) == []
    assert fusion([(0.0, 0, (1, 2, 3, 4)), (0.0, 0, (1, 2, 3, 4))], models=2) == [
        (pytest.approx(0.0, abs=1e-9), 0, (1, 2, 3, 4))
    ]


def test_views_count_where_they_hold_a_box_whole() -> None:
    regions = [(0, 0, 100, 100), (0, 0, 60, 100), (40, 0, 100, 100)]
    boxes = np.array([[10.0, 0, 20, 9], [30, 0, 70, 9], [45, 0, 55, 9]])
    assert views_with(boxes, regions).tolist() == [2, 1, 3]
