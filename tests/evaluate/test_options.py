from __future__ import annotations

from typing import Any

import pytest

from detkit.evaluate.options import EvaluatorOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "coco"}, "engine: 'coco' is neither"),
        ({"max_detections": (1, 100, 10)}, "ascending"),
        ({"max_detections": (0, 10, 100)}, "max_detections: 0 must be between 1 and 100000"),
        ({"area_limits": (9216.0, 1024.0)}, "area_limits"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluatorOptions(**values)
