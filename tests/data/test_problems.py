"""What was dropped, changed or left out is counted by kind, with the first few examples."""

import logging
from typing import Any

import numpy as np
import pytest

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.problems import CLIPPED, CLIPPED_A_PIXEL, DROPPED, NAMED, SWAPPED_CORNERS, Kind, Problems
from detkit.data.datasets.records import Records, RecordsBuilder, count_differences
from detkit.structures import ClassMap
from tests.refusals import Refuses

PAGES = Kind("pages are upside down", lost=True)


def test_examples_are_few_and_the_rest_is_counted() -> None:
    problems = Problems()
    for i in range(NAMED + 3):
        problems.add(PAGES, f"page {i}")
    problems.add(CLIPPED_A_PIXEL, "box 1")
    assert problems.count(PAGES) == problems.lost_count == NAMED + 3
    lines = problems.lines()
    assert lines[0] == f"{NAMED + 3} pages are upside down:"
    assert lines[1:3] == ["  page 0", "  page 1"]
    assert lines[NAMED + 1] == "  and 3 more"
    assert lines[NAMED + 2 :] == ["1 box extends beyond the image by a pixel or less and is clipped for training:",
                                  "  box 1"]  # fmt: skip


def test_two_are_put_together() -> None:
    problems, other = Problems(), Problems()
    problems.add(PAGES, "a", count=2)
    other.add(PAGES, "b", count=3)
    other.add(DROPPED, "c")
    problems.merge(other)
    assert {kind: (found.count, found.examples) for kind, found in problems} == {
        PAGES: (5, ["a", "b"]),
        DROPPED: (1, ["c"]),
    }


def test_what_needs_no_action_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems()
    problems.add(PAGES, "a")
    problems.add(CLIPPED_A_PIXEL, "b")
    with caplog.at_level(logging.INFO, logger="detkit"):
        problems.report("set")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "set: 1 pages are upside down:\n  a"),
        ("INFO", f"set: {CLIPPED_A_PIXEL.counted(1)}:\n  b"),
    ]


def build(
    boxes: list[list[float]], policy: Any = "drop", size: tuple[int, int] = (400, 500), **more: Any
) -> tuple[Records, Problems] | None:
    builder = RecordsBuilder("set", policy)
    builder.add(5, "a.jpg", size, boxes, [0] * len(boxes), [False] * len(boxes), source="image 5 (a.jpg)", **more)
    return builder.build(), builder.problems


@pytest.mark.parametrize(
    ("box", "kind", "text"),
    [
        ([10, 5, 5000, 50], CLIPPED, "xmax=5000 in an image 500 wide"),
        ([-3, -7.5, 20, 20], CLIPPED, "xmin=-3, ymin=-7.5"),
        ([10, 5, 20, 400.25], CLIPPED_A_PIXEL, "ymax=400.25 in an image 400 high"),
        ([600, 5, 700, 50], DROPPED, "outside of the image of 500x400: xmin=600, xmax=700 in an image 500 wide"),
        ([500, 5, 500.5, 50], DROPPED, "outside of the image of 500x400: xmax=500.5 in an image 500 wide"),
        ([-9, 5, -1, 50], DROPPED, "outside of the image of 500x400: xmin=-9, xmax=-1"),
        ([50, 5, 10, 50], DROPPED, "inverted: xmax=10 lies before xmin=50"),
        ([5, 50, 10, 5], DROPPED, "inverted: ymax=5 lies before ymin=50"),
        ([5, 5, 5, 50], DROPPED, "zero area"),
        ([5, 5, 5 + 1e-9, 50], DROPPED, "zero area"),
        ([5, 5, float("inf"), 50], DROPPED, "a coordinate is not finite"),
        ([5, 5, 1e300, 50], DROPPED, "a coordinate is beyond 1e+30"),
    ],
)
def test_file_and_box_and_value_are_named(refuses: Refuses, box: list[float], kind: Kind, text: str) -> None:
    records, problems = build([[1, 2, 30, 40], box])
    rounded = [round(float(v), 2) for v in box]
    assert problems.by_kind[kind].examples == [f"image 5 (a.jpg), box 2 {rounded}: {text}"]
    assert len(records.boxes) == (1 if kind == DROPPED else 2)
    assert np.isfinite(records.boxes).all()
    assert (records.boxes[:, 2:] > records.boxes[:, :2]).all()
    assert len(records.truth.boxes) == 2
    assert records.truth.trained.tolist() == [True, kind != DROPPED]
    with refuses(ValueError):
        build([[50, 5, 10, 50]], "error")


def test_swapped_corners_are_put_right_if_told_so() -> None:
    records, problems = build([[50, 60, 10, 20]], "clip")
    assert records.boxes.tolist() == [[10, 20, 50, 60]]
    assert problems.count(SWAPPED_CORNERS) == 1
    assert records.truth.boxes.tolist() == [[50, 60, -40, -40]]
    assert count_differences(records) == (0, 1)


def test_without_a_stated_size_nothing_is_clipped() -> None:
    records, problems = build([[-5, 5, 5000, 50]], size=(-1, -1))
    assert records.boxes.tolist() == [[-5, 5, 5000, 50]]
    assert not problems


def test_a_plugins_boxes_are_its_truth() -> None:
    records, _ = build([[-5, 5, 20, 50], [1, 2, 3, 4]])
    assert records.truth.boxes.tolist() == [[-5, 5, 25, 45], [1, 2, 2, 2]]
    assert records.truth.area.tolist() == [25 * 45, 4]
    assert records.area.tolist() == [20 * 45, 4]
    assert count_differences(records) == (0, 1)
    assert records.truth.labels is records.labels  # nothing is dropped, so nothing is held twice


def test_a_label_without_a_class_is_named(refuses: Refuses) -> None:
    builder = RecordsBuilder("set", "drop")
    builder.add(1, "a.jpg", (40, 40), [], [], [])
    builder.add(2, "b.jpg", (40, 40), [[1, 2, 30, 40]], [2], [False])
    with refuses(ValueError):
        DetectionDataset().finish("set", ClassMap(("cat", "dog"), (1, 2)), builder, keep_empty=True)
