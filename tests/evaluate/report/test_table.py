from __future__ import annotations

import json

from detkit.evaluate.coco import CocoResult
from detkit.evaluate.report import format_table, to_json

KEYS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small"]


def counts(small: int, medium: int, large: int) -> dict[str, int]:
    return {"all": small + medium + large, "small": small, "medium": medium, "large": large}


def make(**objects: dict[str, int]) -> CocoResult:
    """Every figure 0.5, None where there are no objects."""

    def metrics(n: dict[str, int]) -> dict[str, float | None]:
        return {k: 0.5 if n.get(k.partition("_")[2] or "all", 0) else None for k in KEYS}

    total = {area: sum(c[area] for c in objects.values()) for area in ("all", "small", "medium", "large")}
    return CocoResult(metrics(total), {n: metrics(c) for n, c in objects.items()}, objects, 4, 17)


def test_columns_line_up_and_every_class_has_its_line() -> None:
    lines = format_table(make(cat=counts(1, 1, 1), rhinoceros=counts(10, 200, 3000))).splitlines()
    assert lines[0] == "4 images, 3213 objects, 17 detections"
    table = lines[1:7]
    assert len({len(line) for line in table}) == 1
    assert [line.split()[0] for line in table] == ["class", table[1], "cat", "rhinoceros", table[4], "all"]
    assert table[2].split()[1:3] == ["3", "0.500"]
    assert "n/a" not in "\n".join(lines)
    assert "-1" not in "\n".join(lines)
    assert "AR 100 0.500" in lines[-1]


def test_missing_figures_come_with_their_reason() -> None:
    text = format_table(make(cat=counts(0, 2, 0), dog=counts(0, 0, 0), cow=counts(4, 1, 0)))
    assert "dog: n/a (no ground truth of the class)" in text
    assert "small of cat: n/a (no ground truth up to 32² px)" in text
    assert "large: n/a (no ground truth from 96² px on)" in text
    assert "medium: n/a" not in text
    assert "-1" not in text


def test_nothing_to_measure() -> None:
    lines = format_table(make(cat=counts(0, 0, 0), dog=counts(0, 0, 0))).splitlines()
    assert lines[-1] == "n/a (no ground truth in any image)"


def test_json_has_null_and_not_minus_one() -> None:
    content = json.loads(json.dumps(to_json(make(cat=counts(0, 2, 0), dog=counts(0, 0, 0)))))
    assert content["ap"] == 0.5
    assert content["ap_small"] is None
    assert content["per_class"]["dog"]["ap"] is None
    assert content["num_objects"] == {"cat": 2, "dog": 0}
    assert (content["num_images"], content["num_detections"]) == (4, 17)
