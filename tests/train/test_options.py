from __future__ import annotations

from typing import Any

import pytest

from detkit.train.options import TrainOptions
from tests.refusals import Refuses


@pytest.mark.parametrize(
    ("key", "value"),
    [("iterations", 0), ("accumulate", 0), ("eval_every", -1), ("clip_norm", 0.0), ("ema_decay", 1.0),
     ("keep_last", 0), ("max_minutes", -1.0), ("clip_norm", float("nan"))],
)  # fmt: skip
def test_nonsense_is_refused_by_key(refuses: Refuses, key: str, value: Any) -> None:
    with refuses(ValueError):
        TrainOptions(**{"iterations": 1} | {key: value})


def test_a_warmup_of_no_average_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        TrainOptions(iterations=1, ema_warmup=2000)
    assert TrainOptions(iterations=1, ema_decay=0.9, ema_warmup=2000).ema_warmup == 2000
