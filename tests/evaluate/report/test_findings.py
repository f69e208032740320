"""Every figure of the report on cases that are computed by hand, and its AP against the evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detkit.evaluate.report.findings import histogram
from detkit.evaluate.report.words import conclusions
from detkit.utils.types import Tree
from tests.evaluate.report.made import Made

A, B = (4.0, 4.0, 34.0, 34.0), (50.0, 10.0, 80.0, 40.0)
NOWHERE = (40.0, 50.0, 60.0, 62.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three images: two cats and a dog; a cat; nothing. The class bird has no objects."""
    images = [[(A, 0), (B, 1)], [(A, 0)], []]
    return Made(tmp_path_factory.mktemp("made"), ("cat", "dog", "bird"), images)


@pytest.fixture(scope="module")
def found(made: Made) -> Tree:
    """A cat is found, the dog is taken for a cat, the other cat is missed; two false alarms."""
    return made.find([[(A, 0.9, 0), (B, 0.8, 0)], [(NOWHERE, 0.3, 0)], [(NOWHERE, 0.7, 2)]])


def row(found: Tree, name: str) -> Tree:
    return next(row for row in found["rows"] if row["name"] == name)


def test_ap_is_the_evaluators(made: Made, found: Tree) -> None:
    result = made.evaluated([[(A, 0.9, 0), (B, 0.8, 0)], [(NOWHERE, 0.3, 0)], [(NOWHERE, 0.7, 2)]]).result
    for key, value in result.metrics.items():
        assert row(found, "all classes")["metrics"][key] == (None if value is None else pytest.approx(value, abs=1e-5))
    assert row(found, "cat")["metrics"]["ap"] == pytest.approx(51 / 101, abs=1e-5)  # recall 0.5 at precision 1
    assert row(found, "cat")["by_iou"] == [pytest.approx(51 / 101, abs=1e-5)] * 10
    assert row(found, "dog")["by_iou"] == [0.0] * 10
    assert row(found, "bird")["by_iou"] == [None] * 10
    assert row(found, "all classes")["by_iou"][0] == pytest.approx(51 / 202, abs=1e-5)
    assert row(found, "cat")["objects"] == {"all": 2, "small": 2, "medium": 0, "large": 0}
    low, high = (row(found, "cat")[end] for end in ("low", "high"))
    assert 0 <= low < 51 / 101 < high <= 1


def test_thresholds_and_curves(found: Tree) -> None:
    """Of cats: 0.9 is right, 0.8 and 0.3 are wrong, of 2 objects. F1 is highest, 2 / 3, with the first alone."""
    best = row(found, "cat")["best"]
    assert best == {
        "threshold": pytest.approx(0.9, abs=1e-5),
        "f1": pytest.approx(2 / 3, abs=1e-5),
        "precision": 1.0,
        "recall": 0.5,
    }
    assert row(found, "dog")["best"] is None
    curves = found["curves"]
    at = {t: i for i, t in enumerate(curves["thresholds"])}
    cat = 1  # after all classes
    assert [curves["precision"][cat][at[t]] for t in (0.0, 0.5, 0.85, 0.95)] == [
        pytest.approx(1 / 3, abs=1e-5),
        0.5,
        1.0,
        None,
    ]
    assert [curves["recall"][cat][at[t]] for t in (0.0, 0.85, 0.95)] == [0.5, 0.5, 0.0]
    assert curves["f1"][cat][at[0.5]] == 0.5  # 2 * 1 / (2 + 2)
    assert curves["f1"][0][at[0.5]] == 0.25  # the mean of cat and dog
    assert curves["recall"][3] == [None] * 101
    assert np.mean(curves["precision_over_recall"][cat]) == pytest.approx(51 / 101, abs=1e-5)


def test_confusion(found: Tree) -> None:
    """At cat 0.9, and 0.9 for the others, which have no threshold of their own."""
    assert found["confusion"]["counts"] == [[0, 0, 1], [0, 3, 1], [1, 3, 1]]
    assert found["confusion"]["most"] == []


def test_a_class_taken_for_another(made: Made) -> None:
    """The dog's only detection is a cat of 0.95, which therefore is above the threshold of cats."""
    found = made.find([[(A, 0.9, 0), (B, 0.95, 0)], [(A, 0.8, 0)], [(NOWHERE, 0.99, 2)]])
    assert found["confusion"]["counts"] == [[0, 0, 2], [1, 0, 1], [3, 2, 1]]
    assert found["confusion"]["most"] == [["dog", "cat", 1]]
    assert found["errors"]["counts"]["classification"] == 1


def test_errors(found: Tree) -> None:
    counts = found["errors"]["counts"]
    # As many detections of a class as it has objects: cats 0.9 and 0.8.
    assert {kind: n for kind, n in counts.items() if n} == {"correct": 1, "classification": 1, "missed": 1}
    assert found["errors"]["dap"]["classification"] == pytest.approx(0.5, abs=0.01)  # the dog would be found


def test_calibration(found: Tree) -> None:
    """Four detections in four bins: scores 0.9 (right), 0.8, 0.7, 0.3 (wrong)."""
    assert found["calibration"]["ece"] == pytest.approx((0.1 + 0.8 + 0.7 + 0.3) / 4, abs=1e-5)
    assert found["calibration"]["mean_gap"] == pytest.approx((0.9 + 0.8 + 0.7 + 0.3) / 4 - 0.25, abs=1e-5)


def test_counts_of_images(found: Tree) -> None:
    """Objects: 2, 1, 0. Detections at the thresholds: the first one alone."""
    assert found["per_image"] == {"bins": ["0", "1", "2"], "objects": [1, 1, 1], "detections": [2, 1, 0]}
    wide = histogram(np.array([0, 59, 60, 61]), np.array([0, 0, 0, 0]))
    assert (wide["bins"][:2], wide["bins"][-1]) == (["0-2", "3-5"], "60-62")
    assert wide["objects"][0] == wide["objects"][-2] == 1
    assert (wide["objects"][-1], sum(wide["objects"])) == (2, 4)


def test_pictures(found: Tree) -> None:
    assert [(p["name"], p["caption"]) for p in found["worst"]] == [
        ("0.png", "0 wrong detections, 1 missed object"),
        ("1.png", "0 wrong detections, 1 missed object"),
    ]
    assert [(p["name"], p["caption"]) for p in found["confident"]] == [
        ("0.png", "cat 0.80: the object is of the class dog, IoU 1.00"),
        ("2.png", "bird 0.70: there is no object"),
        ("1.png", "cat 0.30: there is no object"),
    ]
    first = found["worst"][0]
    assert (first["width"], first["height"]) == (96, 64)
    assert first["truth"] == [
        {"box": [4.0, 4.0, 34.0, 34.0], "label": "cat", "correct": True},
        {"box": [50.0, 10.0, 80.0, 40.0], "label": "dog", "correct": False},
    ]
    assert [(d["label"], d["score"], d["correct"]) for d in first["detections"]] == [("cat", 0.9, True)]


def test_ignore_regions_count_neither_way(tmp_path: Path) -> None:
    made = Made(tmp_path, ("cat",), [[(A, 0), (B, 0)]], crowds={(0, 1)})
    found = made.find([[(A, 0.9, 0), (B, 0.95, 0)]])
    assert found["data"]["ignored"] == 1
    assert found["rows"][0]["objects"]["all"] == 1
    assert found["confusion"]["counts"] == [[0, 0, 1]]
    assert found["confident"] == found["worst"] == []
    assert found["rows"][0]["low"] is None  # one image tells nothing of others


def test_no_detections(made: Made) -> None:
    found = made.find([[], [], []])
    assert row(found, "all classes")["metrics"]["ap"] == 0.0
    assert [p["caption"] for p in found["worst"]] == [
        "0 wrong detections, 2 missed objects", "0 wrong detections, 1 missed object",
    ]  # fmt: skip
    assert (found["confident"], found["calibration"]["ece"]) == ([], None)
    assert "The detector found nothing" in conclusions(found)[-1]


def test_no_ground_truth(tmp_path: Path) -> None:
    found = Made(tmp_path, ("cat",), [[], []]).find([[(A, 0.9, 0)], []])
    assert row(found, "all classes")["metrics"]["ap"] is None
    assert conclusions(found) == ["There are no objects in these images, so there is nothing to measure against."]
    assert [p["caption"] for p in found["confident"]] == ["cat 0.90: there is no object"]
    assert found["per_image"]["objects"] == [2, 0]


def test_an_image_that_vanished_is_named_and_left_out(tmp_path: Path) -> None:
    made = Made(tmp_path, ("cat",), [[(A, 0)], [(A, 0), (B, 0)]])
    (tmp_path / "1.png").unlink()
    found = made.find([[(NOWHERE, 0.5, 0)], [(NOWHERE, 0.9, 0)]])
    assert [p["name"] for p in found["worst"]] == ["0.png"]
    assert [p["name"] for p in found["confident"]] == ["0.png"]
    assert found["unread"] == ["1.png", "1.png"]


def test_the_conclusions(found: Tree) -> None:
    lines = conclusions(found)
    assert lines[0].startswith("AP 25.2 (95 % interval over images 0.0 to ")
    assert lines[1:] == [
        "Best class: cat with AP 50.5; weakest: dog with AP 0.0.",
        "The costliest kind of error is classification (wrong class): without it AP50 would be 50.0 points higher.",
        "The best threshold for all classes together is a score of 0.89: mean precision 1.00, mean recall 0.25, mean "
        "F1 0.33.",
        "D-ECE 0.475: scores are 0.425 higher on average than the share of detections that is right.",
        "No objects in these images: bird.",
    ]
