"""Rules that change in the course of a training: class loss, weight of boxes, assigner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from detkit.assigners.wrappers import WarmupAssigner
from detkit.config import load_config
from detkit.losses.base import JointLoss
from detkit.losses.bce import BCELoss
from detkit.losses.box_weights import WarmupWeight
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.soft_targets import QualityFocalLoss
from detkit.losses.warmup import WarmupLoss
from detkit.registry import CLASS_LOSSES
from detkit.structures import Candidates, Positives, Targets

FOCAL, SOFT = {"type": "SigmoidFocalLoss"}, {"type": "QualityFocalLoss"}


def test_the_class_loss_changes() -> None:
    logits, labels = torch.randn(1, 6, 3), torch.tensor([[0, 2, -1, -1, -2, 1]])
    quality = torch.rand(1, 6) * (labels >= 0)
    loss = WarmupLoss(first=FOCAL, then=SOFT, until=0.25)
    assert loss.uses_quality
    first, then = SigmoidFocalLoss()(logits, labels), QualityFocalLoss()(logits, labels, quality)
    assert [loss(logits, labels, quality, progress=p) for p in (0.0, 0.24, 0.25, 1.0)] == [first, first, then, then]


def test_losses_of_other_columns_do_not_follow_each_other() -> None:
    with pytest.raises(ValueError, match="SigmoidFocalLoss and SoftmaxMiningLoss differ in the columns"):
        WarmupLoss(first=FOCAL, then={"type": "SoftmaxMiningLoss"})


def test_three_rules_in_a_row() -> None:
    logits, labels = torch.randn(1, 6, 3), torch.tensor([[0, 2, -1, -1, -2, 1]])
    inner = {"type": "WarmupLoss", "first": FOCAL, "then": SOFT, "until": 0.5}
    loss = WarmupLoss(first={"type": "BCELoss"}, then=inner, until=0.25)
    expected = [part(logits, labels) for part in (BCELoss(), SigmoidFocalLoss(), QualityFocalLoss())]
    assert [loss(logits, labels, None, progress=p) for p in (0.0, 0.3, 0.5)] == expected


def test_what_its_parts_need_it_needs() -> None:
    loss = WarmupLoss(first=FOCAL, then={"type": "PositiveBCELoss"})
    assert (loss.needs_positives, loss.positives_only) == (True, True)
    # config check refuses it without an objectness, as it does PositiveBCELoss
    node = "losses.classification={type: WarmupLoss, first: {type: SigmoidFocalLoss}, then: {type: PositiveBCELoss}}"
    with pytest.raises(ValueError, match="teaches nothing about the background"):
        load_config("retinanet_r50_fpn", [node]).check()


class Together(JointLoss):
    """A joint loss that a node may name."""

    def num_columns(self, num_classes: int) -> int:
        return num_classes


@pytest.mark.parametrize("key", ["first", "then"])
def test_a_joint_loss_neither_follows_nor_precedes_another(key: str) -> None:
    nodes: dict[str, Any] = {"first": FOCAL, "then": SOFT, key: {"type": "Together"}}
    with CLASS_LOSSES.temporary():
        CLASS_LOSSES.register()(Together)
        with pytest.raises(ValueError, match=f"{key}: Together is a loss of classes and boxes"):
            WarmupLoss(**nodes)


def test_the_weight_changes() -> None:
    anchors, boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 20.0, 10.0]])
    positives = Positives(
        torch.zeros(1), anchors, boxes, anchors, None, torch.tensor([0.3]), lambda: anchors, lambda: torch.ones(1, 1)
    )
    weight = WarmupWeight(first={"type": "AnchorIoUWeight"}, then={"type": "TargetQualityWeight"}, until=0.5)
    assert weight.uses_quality
    assert [float(weight(replace(positives, progress=p))) for p in (0.4, 0.5)] == pytest.approx([0.5, 0.3])


def test_hard_targets_of_the_first_assigner() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [40.0, 40.0, 50.0, 50.0]])
    candidates = Candidates(anchors, (2,), lambda: torch.full((2, 1), 0.5), lambda: anchors * 0.9)
    targets = Targets(anchors[:1], torch.tensor([0]))
    rules: dict[str, Any] = {"first": {"type": "ATSSAssigner", "topk": 1}, "then": {"type": "TaskAlignedAssigner"}}
    assert WarmupAssigner(**rules)(candidates, targets).quality is None
    hard = WarmupAssigner(**rules, hard_first=True)
    early, late = (hard(replace(candidates, progress=p), targets).quality for p in (0.0, 0.5))
    assert early is not None
    assert late is not None
    assert float(early[0]) == 1
    assert 0 < float(late[0]) < 1
