"""Every head compiles in one graph, forwards and backwards, and exports."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit import registry
from detkit.heads.base import HeadOutputs

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"type": "SharedTowerHead", "num_convs": 1},
    "deformable": {"type": "SharedTowerHead", "num_convs": 1, "norm": "gn", "deformable": 1, "level_scales": True},
    "quality": {"type": "SharedTowerHead", "num_convs": 1, "with_quality": True},
    "implicit objectness": {"type": "SharedTowerHead", "num_convs": 1, "implicit_objectness": True},
    "guided": {"type": "SharedTowerHead", "num_convs": 1, "guided": True, "box_columns": 68},
    "per level": {"type": "PerLevelHead"},
    "separable": {"type": "SeparableTowerHead", "num_convs": 1},
    "level towers": {"type": "LevelTowerHead", "with_quality": True, "norm": "gn", "activation": "relu"},
    "level norms": {"type": "LevelTowerHead", "share_convs": True},
    "task-aligned": {"type": "TaskAlignedHead", "num_convs": 2, "reduction": 4},
    "star": {"type": "StarHead", "num_convs": 1},
}
ANCHORS = {"plain": 3, "per level": 2, "separable": 3}
"""Anchors a cell, where there is more than one."""
EACH = pytest.mark.parametrize("name", OPTIONS)


def built(name: str) -> tuple[nn.Module, list[Tensor]]:
    """A head of two levels, with weights that reach every branch, and features for it."""
    torch.manual_seed(0)
    node = OPTIONS[name]
    derived = {
        "in_channels": (32, 32),
        "anchors_per_cell": (ANCHORS.get(name, 1),) * 2,
        "num_columns": 3,
        "class_bias": torch.zeros(3),
        "box_columns": node.get("box_columns", 4),
        "with_quality": node.get("with_quality", node["type"] == "StarHead"),
    }
    known = registry.HEADS.derived_arguments(node["type"])
    given = {key: value for key, value in node.items() if key not in derived}
    head: nn.Module = registry.HEADS.build(given, **{key: derived[key] for key in derived if key in known})
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.1)
    return head, [torch.randn(1, 32, 6, 8), torch.randn(1, 32, 3, 4)]


def flat(outputs: Any) -> Tensor:
    """All outputs of a head in one row."""
    parts = [level.flatten() for levels in HeadOutputs(*outputs) if levels is not None for level in levels]
    return torch.cat(parts)


def test_no_head_is_left_out() -> None:
    own = {name for name in registry.HEADS.names() if registry.HEADS.get(name).__module__.startswith("detkit.")}
    assert {node["type"] for node in OPTIONS.values()} == own


@EACH
def test_a_head_compiles_in_one_graph(name: str) -> None:
    head, features = built(name)
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    expected = flat(head(features))
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in head.parameters() if p.grad is not None]
    assert len(gradients) == len(list(head.parameters()))
    head.zero_grad()
    found = flat(compiled(features))
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    for parameter, gradient in zip(head.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@EACH
def test_a_head_exports(name: str) -> None:
    head, features = built(name)
    exported = torch.export.export(head.eval(), (features,)).module()
    with torch.no_grad():
        torch.testing.assert_close(flat(exported(features)), flat(head(features)))
