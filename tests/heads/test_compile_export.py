"""Heads survive torch.compile without a graph break, and torch.export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.registry import HEADS

CASES = [
    ("SharedTowerHead", {"num_convs": 1}),
    ("PerLevelHead", {}),
    ("SeparableTowerHead", {"num_convs": 1}),
]
EACH = pytest.mark.parametrize(("name", "settings"), CASES, ids=[name for name, _ in CASES])
FEATURES = [torch.randn(2, 16, 8, 8), torch.randn(2, 16, 4, 4)]


def head(name: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    handed_in = {"in_channels": (16, 16), "anchors_per_cell": (3, 3), "num_columns": 2, "class_bias": torch.zeros(2)}
    return HEADS.build({"type": name, **settings}, **handed_in).eval()


def flat(outputs: Any) -> list[Tensor]:
    return [x for levels in outputs if levels is not None for x in levels]


@EACH
def test_compiled_as_one_graph(name: str, settings: dict[str, Any]) -> None:
    part = head(name, settings)
    compiled = torch.compile(part, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(flat(compiled(FEATURES)), flat(part(FEATURES)), strict=True):
        torch.testing.assert_close(found, wanted)


@EACH
def test_exported(name: str, settings: dict[str, Any]) -> None:
    part = head(name, settings)
    program = torch.export.export(part, (FEATURES,))
    for found, wanted in zip(flat(program.module()(FEATURES)), flat(part(FEATURES)), strict=True):
        torch.testing.assert_close(found, wanted)
