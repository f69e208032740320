"""Heads with arguments that their defaults leave out keep the contract, compiled and exported too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.heads.base import Head, HeadOutputs, joint_logit
from detkit.registry import HEADS
from detkit.testing import CONTRACTS, Check
from detkit.testing.contract import Subject, describe
from detkit.testing.modules import tensors

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


class Flat(torch.nn.Module):
    """A head whose outputs are one list of tensors."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return tensors(HeadOutputs(*self.head(features)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_and_exported_it_says_the_same(variant: str) -> None:
    shapes = {"in_channels": (64, 64, 64), "anchors_per_cell": (1, 1, 1)}
    head = Flat(build(variant, **shapes, num_columns=3, class_bias=torch.zeros(3))).eval()
    features = [torch.randn(2, 64, *shape) for shape in LEVELS]
    wanted = head(features)
    torch._dynamo.reset()
    compiled: Any = torch.compile(head, backend="aot_eager", fullgraph=True)
    exported = torch.export.export(head, (features,), strict=False).module()
    for found in (compiled(features), exported(features)):
        torch.testing.assert_close(found, wanted)
    torch.stack([t.sum() for t in compiled(features)]).sum().backward()


def test_the_joint_logit_is_that_of_the_product_and_never_overflows() -> None:
    a, b = torch.randn(2, 1000, dtype=torch.float64) * 5
    wanted = (a.sigmoid() * b.sigmoid()).logit()
    torch.testing.assert_close(joint_logit(a, b), wanted)
    wild = torch.tensor([3e4, -3e4, 6e4, -6e4], dtype=torch.float16)
    assert joint_logit(wild[:, None], wild).isfinite().all()
    assert joint_logit(wild[:, None], wild).dtype == torch.float32
