"""Parts of the losses that can't work together are refused in words, with their line, before anything is built."""

from __future__ import annotations

import pytest

from detkit.config import load_config
from tests.refusals import Refuses


@pytest.mark.parametrize(
    ("config", "override"),
    [
        ("gfl", "losses.box={type: L1Loss}"),
        ("gfl", "losses.box_weight=null"),
        ("gfl", "losses.auxiliary=[{type: LateL1Loss}, {type: LateL1Loss}]"),
        ("gfl", "coder={type: DeltaCoder}"),
        ("fcos", "head={type: PerLevelHead}"),
        ("retinanet_r50_fpn", "coder={type: DistributionCoder}"),
        ("retinanet_r50_fpn", "losses.box=null"),
        ("retinanet_r50_fpn", "losses.quality_normalizer={type: PositiveCount}"),
    ],
)
def test_refused(refuses: Refuses, config: str, override: str) -> None:
    with refuses(ValueError):
        load_config(config, [override]).check()


def test_a_quality_branch_may_be_left_out() -> None:
    load_config("fcos", ["losses.quality=null"]).check()
