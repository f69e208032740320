from __future__ import annotations

from typing import Any

import pytest

from detkit.evaluate.options import EvaluatorOptions
from tests.refusals import Refuses


@pytest.mark.parametrize(
    "values",
    [
        {"engine": "coco"},
        {"max_detections": (1, 100, 10)},
        {"max_detections": (0, 10, 100)},
        {"area_limits": (9216.0, 1024.0)},
        {"max_per_image": 0},
    ],
)
def test_bad_values_are_refused(refuses: Refuses, values: dict[str, Any]) -> None:
    with refuses(ValueError):
        EvaluatorOptions(**values)
