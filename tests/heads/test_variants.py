"""Heads with arguments that their defaults leave out keep the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detkit.heads.base import Head, joint_logit
from detkit.registry import HEADS
from detkit.testing import CONTRACTS, Check
from detkit.testing.contract import Subject, describe

VARIANTS: dict[str, dict[str, Any]] = {
    "quality": {"type": "SharedTowerHead", "with_quality": True, "norm": "gn", "level_scales": True},
    "level_towers": {"type": "LevelTowerHead", "with_quality": True, "norm": "gn", "activation": "relu"},
    "level_norms": {"type": "LevelTowerHead", "share_convs": True},
    "implicit_objectness": {"type": "SharedTowerHead", "implicit_objectness": True, "num_convs": 1, "box_convs": 2},
}
LEVELS = ((8, 8), (4, 4), (2, 2))


def build(variant: str, **derived: Any) -> Head:
    node = dict(VARIANTS[variant])
    derived = {"with_quality": node.pop("with_quality", False)} | derived
    head: Head = HEADS.build(node, **derived)
    return head


def subject(variant: str) -> Subject:
    return CONTRACTS["heads"].subject(lambda **derived: build(variant, **derived))


@pytest.mark.parametrize("check", CONTRACTS["heads"].checks, ids=lambda check: check.name)
@pytest.mark.parametrize("variant", VARIANTS)
def test_contract(variant: str, check: Check) -> None:
    result = CONTRACTS["heads"].run_one(subject(variant), check)
    assert result.ok, describe(variant, result)


def test_the_joint_logit_is_that_of_the_product_and_never_overflows() -> None:
    a, b = torch.randn(2, 1000, dtype=torch.float64) * 5
    wanted = (a.sigmoid() * b.sigmoid()).logit()
    torch.testing.assert_close(joint_logit(a, b), wanted)
    wild = torch.tensor([3e4, -3e4, 6e4, -6e4], dtype=torch.float16)
    assert joint_logit(wild[:, None], wild).isfinite().all()
    assert joint_logit(wild[:, None], wild).dtype == torch.float32
