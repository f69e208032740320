"""Parts of the losses that can't work together are refused in words, with their line, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import Tensor

from detkit.coders.base import BoxCoder
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES
from tests.refusals import Refuses


@pytest.fixture(autouse=True)
def unweighed() -> Iterator[None]:
    """A box loss without the argument `weights`."""
    with BOX_LOSSES.temporary():

        @BOX_LOSSES.register()
        class UnweighedLoss(BoxLoss):
            """Nothing."""

            def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:  # type: ignore[override]
                return deltas.sum()

        yield


@pytest.mark.parametrize(
    ("config", "override"),
    [
        ("gfl", "losses.box={type: L1Loss}"),
        ("gfl", "losses.box_weight=null"),
        ("yolox_tiny", "losses.auxiliary=[{type: LateL1Loss}, {type: LateL1Loss}]"),
        ("gfl", "losses.auxiliary=[{type: LateL1Loss}]"),
        ("gfl", "coder={type: DeltaCoder}"),
        ("vfnet", "losses.auxiliary=[{type: FirstBoxLoss, box: {type: UnweighedLoss}}]"),
        ("yolox_tiny", "losses.quality={type: IoUQualityLoss}"),
        ("gflv2", "losses.classification={type: SeesawLoss}"),
        ("tood", "losses.classification={type: SoftmaxMiningLoss}"),
        ("yolof", "losses.classification={type: SoftmaxMiningLoss}"),
        ("tood", "assigner={type: ATSSAssigner}"),
        (
            "fcos",
            "losses.box_weight={type: WarmupWeight, first: {type: IoUWeight}, then: {type: IoUWeight}, until: null}",
        ),
        ("fcos", "head={type: PerLevelHead}"),
        ("retinanet_r50_fpn", "coder={type: DistributionCoder}"),
        ("retinanet_r50_fpn", "losses.box=null"),
        ("retinanet_r50_fpn", "losses.quality_normalizer={type: PositiveCount}"),
    ],
)
def test_refused(refuses: Refuses, config: str, override: str) -> None:
    with refuses(ValueError):
        load_config(config, [override]).check()


def test_rules_change_with_the_assigner_in_one_place() -> None:
    small = ["backbone={type: ResNet, depth: 18, weights: null}", "assigner.assigner.until=0.25"]
    detector = build_detector(load_config("tood", small), 3)
    assert detector.assigner.changes_at == 0.25
    assert (detector.class_loss.until, detector.box_weight.until) == (0.25, 0.25)


def test_a_quality_branch_may_be_left_out() -> None:
    load_config("fcos", ["losses.quality=null"]).check()
